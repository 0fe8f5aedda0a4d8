package attest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// requestTimeout bounds each request to a signer, an authority or a log.
	requestTimeout = 15 * time.Second
	// maxAnswer of a refusal that is kept for people.
	maxAnswer = 512
)

// statusError is an answer that is no success.
type statusError struct {
	code int
	body string
}

func (e *statusError) Error() string { return fmt.Sprintf("answered %d: %s", e.code, e.body) }

// refused tells that the server does not accept the caller, so that asking again changes nothing.
func (e *statusError) refused() bool {
	return e.code >= http.StatusBadRequest && e.code < http.StatusInternalServerError && e.code != http.StatusTooManyRequests
}

// tlsConfig trusts the PEM certificates of caBundle and no others; without any it is nil, which means the system's.
func tlsConfig(caBundle string) (*tls.Config, error) {
	if caBundle == "" {
		return nil, nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(caBundle)) {
		return nil, errors.New("CA bundle holds no certificate in PEM")
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

// newTransport returns an http.RoundTripper whose error for any answer but a success is a *statusError: the clients
// of authorities have no error to tell them apart by, and lose the text of a server's own failure.
func newTransport(settings *tls.Config) (http.RoundTripper, error) {
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("the default transport was replaced")
	}
	if settings != nil {
		base = base.Clone()
		base.TLSClientConfig = settings
	}
	return strictTransport{base}, nil
}

type strictTransport struct{ base http.RoundTripper }

// RoundTrip is that of http.RoundTripper.
func (s strictTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := s.base.RoundTrip(request)
	if err != nil || response.StatusCode < http.StatusBadRequest {
		return response, err
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, fmt.Errorf("answered %d, without a body to read: %w", response.StatusCode, err)
	}
	return nil, &statusError{code: response.StatusCode, body: string(bytes.TrimSpace(body))}
}
