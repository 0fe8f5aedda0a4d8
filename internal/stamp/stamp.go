package stamp

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// Sign returns the acknowledgement with its MAC over every other field. The time is cut to the microseconds that the
// API server keeps, so that what is stored still checks.
func Sign(key []byte, ack v1alpha1.Acknowledgement) (v1alpha1.Acknowledgement, error) {
	if len(key) < minKeyBytes {
		return v1alpha1.Acknowledgement{}, fmt.Errorf("sign acknowledgement: key has %d bytes, needs %d", len(key), minKeyBytes)
	}
	mac, err := code(key, ack)
	if err != nil {
		return v1alpha1.Acknowledgement{}, err
	}
	ack.MAC = hex.EncodeToString(mac)
	return ack, nil
}

// Valid says whether the MAC is that of this key over these fields. A key that is too short validates nothing.
func Valid(key []byte, ack v1alpha1.Acknowledgement) bool {
	if len(key) < minKeyBytes {
		return false
	}
	claimed, err := hex.DecodeString(ack.MAC)
	if err != nil {
		return false
	}
	expected, err := code(key, ack)
	return err == nil && hmac.Equal(claimed, expected)
}

func code(key []byte, ack v1alpha1.Acknowledgement) ([]byte, error) {
	ack.MAC = ""
	raw, err := json.Marshal(ack)
	if err != nil {
		return nil, fmt.Errorf("marshal acknowledgement: %w", err)
	}
	payload, err := evidence.Canonical(json.RawMessage(raw))
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, key)
	// A hash never returns an error from Write.
	mac.Write(payload)
	return mac.Sum(nil), nil
}
