package attest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"

	"ugallu.io/forensics/api/evidence"
)

// ErrDuplicate is returned by Log when the log has this very signature already, and its proof was lost with the answer.
// Sign the statement again: ECDSA signatures differ each time.
var ErrDuplicate = errors.New("the log has this signature already")

// rekorVersion 2 is the tile-based log.
const rekorVersion = 2

// Log is a transparency log and a time-stamping authority.
type Log struct {
	// RekorURL of a Rekor v2 log.
	RekorURL string
	// TimestampURL of an RFC 3161 authority, with path.
	TimestampURL string
}

// Add time-stamps and logs an envelope, and returns the bundle after trust has verified it: nothing that does not
// verify is ever returned. ErrUnknownKey means that trust has no key for the envelope.
func (l Log) Add(ctx context.Context, envelope []byte, trust *Trust) ([]byte, error) {
	parsed, err := ParseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	key, err := trust.key(parsed.Signatures[0].KeyID)
	if err != nil {
		return nil, err
	}
	timestamp, err := l.timestamp(ctx, parsed.Signatures[0].Sig)
	if err != nil {
		return nil, err
	}
	bundle := assemble(parsed, timestamp)
	if err := l.addEntry(ctx, key, bundle); err != nil {
		return nil, err
	}
	data, err := marshalBundle(bundle)
	if err != nil {
		return nil, err
	}
	if _, err := trust.Verify(data); err != nil {
		return nil, fmt.Errorf("verify the new bundle: %w", err)
	}
	return data, nil
}

func (l Log) timestamp(ctx context.Context, signature []byte) ([]byte, error) {
	authority := sign.NewTimestampAuthority(&sign.TimestampAuthorityOptions{URL: l.TimestampURL, Timeout: requestTimeout})
	timestamp, err := authority.GetTimestamp(ctx, signature)
	if err != nil {
		return nil, fmt.Errorf("get timestamp from %s: %w", l.TimestampURL, err)
	}
	return timestamp, nil
}

func (l Log) addEntry(ctx context.Context, key publicKey, bundle *protobundle.Bundle) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	rekor := sign.NewRekor(&sign.RekorOptions{BaseURL: l.RekorURL, Version: rekorVersion})
	err := rekor.GetTransparencyLogEntry(ctx, key.pem(), bundle)
	if err == nil {
		return nil
	}
	// The client has no typed error for a status; this is its wording of HTTP 409.
	if strings.Contains(err.Error(), "unexpected response: 409") {
		return fmt.Errorf("add entry to %s: %w: %w", l.RekorURL, ErrDuplicate, err)
	}
	return fmt.Errorf("add entry to %s: %w", l.RekorURL, err)
}

func assemble(envelope Envelope, timestamp []byte) *protobundle.Bundle {
	signature := envelope.Signatures[0]
	return &protobundle.Bundle{
		MediaType: evidence.MediaTypeBundle,
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload:     envelope.Payload,
			PayloadType: envelope.PayloadType,
			Signatures:  []*protodsse.Signature{{Sig: signature.Sig}},
		}},
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_PublicKey{
				PublicKey: &protocommon.PublicKeyIdentifier{Hint: signature.KeyID},
			},
			TimestampVerificationData: &protobundle.TimestampVerificationData{
				Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: timestamp}},
			},
		},
	}
}

func marshalBundle(bundle *protobundle.Bundle) ([]byte, error) {
	spaced, err := protojson.Marshal(bundle)
	if err != nil {
		return nil, fmt.Errorf("marshal bundle: %w", err)
	}
	var compact bytes.Buffer // protojson adds white space at random
	if err := json.Compact(&compact, spaced); err != nil {
		return nil, fmt.Errorf("compact bundle: %w", err)
	}
	return compact.Bytes(), nil
}
