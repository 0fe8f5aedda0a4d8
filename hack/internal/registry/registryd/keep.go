package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"sync"
)

// The registry package keeps manifests in memory only. Each one that it accepts is written here, type line first,
// under its escaped request path; all are put again at the next start.
type keeper struct {
	next http.Handler
	dir  string
	// One write at a time: two pushes of one tag must not interleave in its file.
	mutex sync.Mutex
}

var manifestPath = regexp.MustCompile(`^/v2/.+/manifests/[^/]+$`)

// maxManifest is the registry specification's own bound for a manifest.
const maxManifest = 4 << 20

// keep wraps a registry and puts what an earlier one had kept in dir.
func keep(next http.Handler, dir string) (*keeper, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list kept manifests: %w", err)
	}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(dir, entry.Name())) // #nosec G304 -- our own store
		if err != nil {
			return nil, fmt.Errorf("read a kept manifest: %w", err)
		}
		kind, body, _ := bytes.Cut(content, []byte("\n"))
		path, err := url.PathUnescape(entry.Name())
		if err != nil {
			return nil, fmt.Errorf("read the name of a kept manifest: %w", err)
		}
		request := httptest.NewRequest(http.MethodPut, path, bytes.NewReader(body))
		request.Header.Set("Content-Type", string(kind))
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, request)
		if answer.Code != http.StatusCreated {
			return nil, fmt.Errorf("put %s again: %s", path, answer.Body)
		}
	}
	return &keeper{next: next, dir: dir}, nil
}

// ServeHTTP implements http.Handler.
func (k *keeper) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	if in.Method != http.MethodPut || !manifestPath.MatchString(in.URL.Path) {
		k.next.ServeHTTP(out, in)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(out, in.Body, maxManifest))
	if err != nil {
		http.Error(out, err.Error(), http.StatusBadRequest)
		return
	}
	in.Body = io.NopCloser(bytes.NewReader(body))
	answer := httptest.NewRecorder()
	k.next.ServeHTTP(answer, in)
	if answer.Code == http.StatusCreated {
		if err := k.write(in.URL.Path, in.Header.Get("Content-Type"), body); err != nil {
			http.Error(out, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	for name, values := range answer.Header() {
		out.Header()[name] = values
	}
	out.WriteHeader(answer.Code)
	if _, err := answer.Body.WriteTo(out); err != nil {
		fmt.Fprintln(os.Stderr, "registryd: answer a push:", err)
	}
}

func (k *keeper) write(path, kind string, body []byte) error {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	name := filepath.Join(k.dir, url.PathEscape(path))
	part := filepath.Join(filepath.Dir(k.dir), "part")
	content := append([]byte(kind+"\n"), body...)
	if err := errors.Join(os.WriteFile(part, content, 0o600), os.Rename(part, name)); err != nil {
		return fmt.Errorf("keep a manifest: %w", err)
	}
	return nil
}
