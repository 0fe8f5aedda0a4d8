package upload

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// Seal encrypts what is written into what it is given; Close completes that.
type Seal func(io.Writer) (io.WriteCloser, error)

// Age seals to recipients, "age1…", any of whom can open it with the age tool.
func Age(recipients ...string) (Seal, error) {
	if len(recipients) == 0 {
		return nil, errors.New("age needs a recipient")
	}
	parsed, err := age.ParseRecipients(strings.NewReader(strings.Join(recipients, "\n")))
	if err != nil {
		return nil, fmt.Errorf("parse age recipients: %w", err)
	}
	return func(to io.Writer) (io.WriteCloser, error) { return age.Encrypt(to, parsed...) }, nil
}
