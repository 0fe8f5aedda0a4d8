package attest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/rekor-tiles/v2/pkg/client"
	"github.com/sigstore/rekor-tiles/v2/pkg/client/write"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"

	"ugallu.io/forensics/api/evidence"
)

// ErrDuplicate is returned by Log when the log has this very signature already, and its proof was lost with the answer.
// Sign the statement again: ECDSA signatures differ each time.
var ErrDuplicate = errors.New("the log has this signature already")

// rekorVersion 2 is the tile-based log.
const rekorVersion = 2

// Log is a transparency log and a time-stamping authority. With its two addresses alone it trusts the system's roots.
type Log struct {
	// RekorURL of a Rekor v2 log.
	RekorURL string
	// TimestampURL of an RFC 3161 authority, with path.
	TimestampURL string

	writer    sign.RekorV2Client
	transport http.RoundTripper
}

// NewLog does not connect. The certificates of both servers must chain to caBundle, PEM, if it is not empty.
func NewLog(rekorURL, timestampURL, caBundle string) (Log, error) {
	settings, err := tlsConfig(caBundle)
	if err != nil {
		return Log{}, err
	}
	transport, err := newTransport(settings)
	if err != nil {
		return Log{}, err
	}
	writer, err := write.NewWriter(rekorURL, client.WithTimeout(requestTimeout), client.WithTLSConfig(settings))
	if err != nil {
		return Log{}, fmt.Errorf("make client of log %s: %w", rekorURL, err)
	}
	return Log{RekorURL: rekorURL, TimestampURL: timestampURL, writer: writer, transport: transport}, nil
}

// Add time-stamps and logs an envelope, and returns the bundle after trust has verified it: nothing that does not
// verify is ever returned. ErrUnknownKey means that trust does not know who signed; ErrDuplicate and ErrExpired, that
// the statement must be signed again.
func (l Log) Add(ctx context.Context, envelope []byte, trust *Trust) ([]byte, error) {
	parsed, err := ParseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	by, err := trust.signatory(parsed.credential())
	if err != nil {
		return nil, err
	}
	// Only what was really signed may come to be signed again.
	if err := by.verify(parsed); err != nil {
		return nil, err
	}
	timestamp, err := l.timestamp(ctx, parsed.Signatures[0].Sig)
	if err != nil {
		return nil, err
	}
	bundle := assemble(parsed, timestamp)
	if err := trust.checkTime(bundle, by); err != nil {
		return nil, fmt.Errorf("timestamp from %s: %w", l.TimestampURL, err)
	}
	if err := l.addEntry(ctx, by.pem, bundle); err != nil {
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
	authority := sign.NewTimestampAuthority(&sign.TimestampAuthorityOptions{
		URL: l.TimestampURL, Timeout: requestTimeout, Transport: l.transport,
	})
	timestamp, err := authority.GetTimestamp(ctx, signature)
	if err != nil {
		return nil, fmt.Errorf("get timestamp from %s: %w", l.TimestampURL, err)
	}
	return timestamp, nil
}

func (l Log) addEntry(ctx context.Context, keyOrCertificate []byte, bundle *protobundle.Bundle) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	rekor := sign.NewRekor(&sign.RekorOptions{BaseURL: l.RekorURL, Version: rekorVersion, ClientV2: l.writer})
	err := rekor.GetTransparencyLogEntry(ctx, keyOrCertificate, bundle)
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
	bundle := &protobundle.Bundle{
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
	if len(signature.Certificate) > 0 {
		bundle.VerificationMaterial.Content = &protobundle.VerificationMaterial_Certificate{
			Certificate: &protocommon.X509Certificate{RawBytes: signature.Certificate},
		}
	}
	return bundle
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
