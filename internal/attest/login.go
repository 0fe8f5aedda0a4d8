package attest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/openbao/openbao/api/v2"
)

// login gets the token that a transit engine lets in.
type login interface {
	// token may ask the engine through client. The errors wrap ErrToken or ErrRefused unless the engine is away.
	token(ctx context.Context, client *api.Client) (string, error)
	// forget a token that the engine refused.
	forget()
}

func newLogin(config TransitConfig) login {
	if config.Role == "" {
		return fileLogin(config.TokenFile)
	}
	return &kubernetesLogin{mount: config.AuthMount, role: config.Role, file: config.TokenFile}
}

// fileLogin is a file with the engine's own token.
type fileLogin string

func (f fileLogin) token(context.Context, *api.Client) (string, error) { return readToken(string(f)) }

func (f fileLogin) forget() {}

// kubernetesLogin trades a ServiceAccount token for the engine's own, and keeps that for half of its life.
type kubernetesLogin struct {
	mount, role, file string

	mutex sync.Mutex
	kept  string
	until time.Time
}

func (k *kubernetesLogin) token(ctx context.Context, client *api.Client) (string, error) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if k.kept != "" && time.Now().Before(k.until) {
		return k.kept, nil
	}
	account, err := readToken(k.file)
	if err != nil {
		return "", err
	}
	asked := time.Now()
	secret, err := client.Logical().WriteWithContext(ctx, "auth/"+k.mount+"/login", map[string]any{"role": k.role, "jwt": account})
	if denied(err) {
		return "", fmt.Errorf("log in to the transit engine as role %s: %w: %w", k.role, ErrRefused, err)
	}
	if err != nil {
		return "", fmt.Errorf("log in to the transit engine as role %s: %w", k.role, err)
	}
	if secret == nil || secret.Auth == nil || secret.Auth.ClientToken == "" {
		return "", fmt.Errorf("log in to the transit engine as role %s: answer has no token", k.role)
	}
	k.kept = secret.Auth.ClientToken
	k.until = asked.Add(time.Duration(secret.Auth.LeaseDuration) * time.Second / 2)
	return k.kept, nil
}

func (k *kubernetesLogin) forget() {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.kept = ""
}

// denied tells whether an engine answered that the caller may not do this, or not this way: 400 where a login is wrong,
// 404 where a mount is.
func denied(err error) bool {
	answer, ok := errors.AsType[*api.ResponseError](err)
	if !ok {
		return false
	}
	switch answer.StatusCode {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return true
	default:
		return false
	}
}
