package destination

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

// WithKey has the store encrypt with its own key where a destination says so; it adjusts a call of Open.
func WithKey(to v1alpha1.Destination) func(*worm.Config) {
	return func(config *worm.Config) {
		if to.Encryption == v1alpha1.EncryptionSSEKMS {
			config.KMSKeyID = to.KMSKeyID
		}
	}
}

// CheckRecipient says what is wrong with one age recipient.
func CheckRecipient(recipient string) error {
	_, err := parse([]string{recipient})
	return err
}

// CheckRecipients says why nothing can be encrypted to age recipients that are right one by one: age does not mix keys
// that withstand quantum computers with others.
func CheckRecipients(recipients []string) error {
	_, err := Encrypt(recipients, nil)
	return err
}

// Encrypt encrypts data into an age file that each recipient can open alone.
func Encrypt(recipients []string, data []byte) ([]byte, error) {
	parsed, err := parse(recipients)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	writer, err := age.Encrypt(&out, parsed...)
	if err != nil {
		return nil, fmt.Errorf("encrypt to age recipients: %w", err)
	}
	if _, err := io.Copy(writer, bytes.NewReader(data)); err != nil {
		return nil, fmt.Errorf("encrypt to age recipients: %w", err)
	}
	if err := writer.Close(); err != nil {
		return nil, fmt.Errorf("encrypt to age recipients: %w", err)
	}
	return out.Bytes(), nil
}

func parse(recipients []string) ([]age.Recipient, error) {
	if len(recipients) == 0 {
		return nil, errors.New("age needs a recipient")
	}
	parsed, err := age.ParseRecipients(strings.NewReader(strings.Join(recipients, "\n")))
	if err != nil {
		return nil, fmt.Errorf("parse age recipients: %w", err)
	}
	return parsed, nil
}
