package attest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sigstore/sigstore-go/pkg/sign"

	"ugallu.io/forensics/api/evidence"
)

// Signature is a signature over a DSSE pre-authentication encoding, and the key that made it.
type Signature struct {
	Bytes []byte
	// KeyID is base64 of the sha256 of the public key in PKIX DER: it names one key, also after a rotation.
	KeyID string
}

// Signer holds a signing identity.
type Signer interface {
	// Sign signs data itself, not its digest.
	Sign(ctx context.Context, data []byte) (Signature, error)
}

// Envelope is a DSSE envelope with one signature, in its JSON form.
type Envelope struct {
	PayloadType string              `json:"payloadType"`
	Payload     []byte              `json:"payload"`
	Signatures  []EnvelopeSignature `json:"signatures"`
}

// EnvelopeSignature is one signature of an envelope.
type EnvelopeSignature struct {
	KeyID string `json:"keyid"`
	Sig   []byte `json:"sig"`
}

// Sign makes the envelope of a statement. It is the stage to persist before Log.
func Sign(ctx context.Context, signer Signer, statement []byte) ([]byte, error) {
	signature, err := signer.Sign(ctx, preAuthEncoding(statement))
	if err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	data, err := json.Marshal(Envelope{
		PayloadType: evidence.PayloadType,
		Payload:     statement,
		Signatures:  []EnvelopeSignature{{KeyID: signature.KeyID, Sig: signature.Bytes}},
	})
	if err != nil {
		return nil, fmt.Errorf("marshal envelope: %w", err)
	}
	return data, nil
}

// ParseEnvelope reads what Sign made.
func ParseEnvelope(data []byte) (Envelope, error) {
	var envelope Envelope
	if err := json.Unmarshal(data, &envelope); err != nil {
		return Envelope{}, fmt.Errorf("parse envelope: %w", err)
	}
	if envelope.PayloadType != evidence.PayloadType || len(envelope.Signatures) != 1 {
		return Envelope{}, errors.New("envelope is not one signature over an in-toto statement")
	}
	return envelope, nil
}

func preAuthEncoding(statement []byte) []byte {
	content := sign.DSSEData{Data: statement, PayloadType: evidence.PayloadType}
	return content.PreAuthEncoding()
}
