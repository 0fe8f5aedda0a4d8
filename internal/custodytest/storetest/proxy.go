package storetest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy stands between a client and a server.
type Proxy struct {
	// Endpoint with scheme.
	Endpoint string

	intercept atomic.Pointer[func(*http.Request) int]
	lose      atomic.Pointer[func(*http.Request) bool]
	slow      atomic.Int64
	requests  atomic.Int64
}

// NewProxy forwards to a server until the test ends.
func NewProxy(t testing.TB, s *Server) *Proxy {
	t.Helper()
	target, err := url.Parse(s.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{
		// The Host header stays: it is signed.
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host },
		// What the client sees of a server that is gone is a lost connection.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	p := &Proxy{}
	forward.ModifyResponse = func(r *http.Response) error {
		if lose := p.lose.Load(); lose != nil && (*lose)(r.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // a server may do its work while it answers
			return http.ErrAbortHandler
		}
		return nil
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.requests.Add(1)
		if intercept := p.intercept.Load(); intercept != nil {
			if status := (*intercept)(r); status != 0 {
				_, _ = io.Copy(io.Discard, r.Body) // an answer before the end of the body would cut the connection
				w.WriteHeader(status)
				return
			}
		}
		r.Body = &slowBody{r.Body, time.Duration(p.slow.Load())}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	p.Endpoint = server.URL
	return p
}

// Intercept answers requests with the status that answer returns; 0 lets a request pass.
func (p *Proxy) Intercept(answer func(*http.Request) int) { p.intercept.Store(&answer) }

// Lose cuts the connection instead of passing on the answer to a request that the server has served.
func (p *Proxy) Lose(answer func(*http.Request) bool) { p.lose.Store(&answer) }

// Slow makes each read of a request's body wait.
func (p *Proxy) Slow(wait time.Duration) { p.slow.Store(int64(wait)) }

// Requests that came so far.
func (p *Proxy) Requests() int64 { return p.requests.Load() }

type slowBody struct {
	io.ReadCloser
	wait time.Duration
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.wait > 0 {
		time.Sleep(b.wait)
	}
	return b.ReadCloser.Read(p)
}
