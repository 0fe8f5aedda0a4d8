package attest

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sigstore/sigstore-go/pkg/sign"

	"ugallu.io/forensics/api/evidence"
)

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
	// Certificate in DER, which the bundle will carry; DSSE itself has no place for it.
	Certificate []byte `json:"certificate,omitempty"`
}

// newEnvelope is the stage to persist before Log.
func newEnvelope(statement []byte, signature Signature) ([]byte, error) {
	data, err := json.Marshal(Envelope{
		PayloadType: evidence.PayloadType,
		Payload:     statement,
		Signatures: []EnvelopeSignature{{
			KeyID: signature.KeyID, Sig: signature.Bytes, Certificate: signature.Certificate,
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("marshal envelope: %w", err)
	}
	return data, nil
}

// ParseEnvelope reads what Notary.Sign made.
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

// Payload is what a bundle says that it is signed over, for whoever knows its digest. Trust.Verify proves who signed it.
func Payload(bundleJSON []byte) ([]byte, error) {
	var parsed struct {
		Envelope Envelope `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(bundleJSON, &parsed); err != nil {
		return nil, fmt.Errorf("parse bundle: %w", err)
	}
	return parsed.Envelope.Payload, nil
}

// credential of the one signature.
func (e Envelope) credential() Credential {
	return Credential{KeyID: e.Signatures[0].KeyID, Certificate: e.Signatures[0].Certificate}
}

func preAuthEncoding(statement []byte) []byte {
	content := sign.DSSEData{Data: statement, PayloadType: evidence.PayloadType}
	return content.PreAuthEncoding()
}
