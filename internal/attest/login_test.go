package attest_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/custodytest"
)

// front is the Kubernetes authentication of a transit engine, over TLS, before the engine itself, which has none.
type front struct {
	logins, refuse atomic.Int32
	token          string
	lease          int
}

func (f *front) start(t *testing.T, engine attest.TransitConfig) attest.TransitConfig {
	t.Helper()
	own, err := os.ReadFile(engine.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(engine.Address)
	if err != nil {
		t.Fatal(err)
	}
	f.token = strings.TrimSpace(string(own))
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/auth/cluster/login", func(w http.ResponseWriter, r *http.Request) { f.login(t, w, r) })
	mux.HandleFunc("/v1/auth/", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		answer(t, w, map[string]any{"errors": []string{"no handler for route"}})
	})
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if f.refuse.Load() > 0 {
			f.refuse.Add(-1)
			w.WriteHeader(http.StatusForbidden)
			return
		}
		proxy.ServeHTTP(w, r)
	})
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	engine.Address, engine.CABundle = server.URL, string(certificatePEM(server.Certificate().Raw))
	engine.Role, engine.AuthMount, engine.TokenFile = "attestor", "cluster", filepath.Join(t.TempDir(), "openbao")
	writeFile(t, engine.TokenFile, "account-token\n")
	return engine
}

func (f *front) login(t *testing.T, w http.ResponseWriter, r *http.Request) {
	var request struct{ Role, JWT string }
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		t.Error(err)
	}
	if request.Role != "attestor" || request.JWT != "account-token" {
		w.WriteHeader(http.StatusBadRequest)
		answer(t, w, map[string]any{"errors": []string{"invalid role name"}})
		return
	}
	f.logins.Add(1)
	answer(t, w, map[string]any{"auth": map[string]any{"client_token": f.token, "lease_duration": f.lease}})
}

func kubernetesLogin(t *testing.T, servers *custodytest.Servers) {
	long := &front{lease: 3600}
	signer := newTransit(t, long.start(t, servers.Transit))
	for range 3 {
		if _, err := signer.Sign(t.Context(), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if logins := long.logins.Load(); logins != 1 {
		t.Errorf("%d logins for three signatures", logins)
	}
	long.refuse.Store(1)
	if _, err := signer.Sign(t.Context(), []byte("x")); !errors.Is(err, attest.ErrRefused) {
		t.Errorf("token that ran out: %v", err)
	}
	if _, err := signer.Sign(t.Context(), []byte("x")); err != nil || long.logins.Load() != 2 {
		t.Errorf("after a refusal: %v, %d logins", err, long.logins.Load())
	}
	short := &front{}
	signer = newTransit(t, short.start(t, servers.Transit))
	for range 2 {
		if _, err := signer.Credential(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if logins := short.logins.Load(); logins != 2 {
		t.Errorf("%d logins with a lease that ends at once", logins)
	}
}

func wrongLogin(t *testing.T, servers *custodytest.Servers) {
	engine := &front{lease: 3600}
	config := engine.start(t, servers.Transit)
	for name, test := range map[string]struct {
		change func(*attest.TransitConfig)
		want   error
	}{
		"another role": {func(c *attest.TransitConfig) { c.Role = "other" }, attest.ErrRefused},
		"no token":     {func(c *attest.TransitConfig) { c.TokenFile += "-absent" }, attest.ErrToken},
		"no method":    {func(c *attest.TransitConfig) { c.AuthMount = "absent" }, attest.ErrRefused},
		"no key":       {func(c *attest.TransitConfig) { c.Key = "absent" }, attest.ErrRefused},
	} {
		changed := config
		test.change(&changed)
		signer := newTransit(t, changed)
		if _, err := signer.Sign(t.Context(), []byte("x")); !errors.Is(err, test.want) {
			t.Errorf("%s: sign: %v", name, err)
		}
		if _, err := signer.Credential(t.Context()); !errors.Is(err, test.want) {
			t.Errorf("%s: credential: %v", name, err)
		}
	}
	config.CABundle = ""
	if _, err := newTransit(t, config).Sign(t.Context(), []byte("x")); !unknownAuthority(err) {
		t.Errorf("certificate of a CA that is not trusted: %v", err)
	}
}

func newTransit(t *testing.T, config attest.TransitConfig) *attest.Transit {
	t.Helper()
	signer, err := attest.NewTransit(config)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}
