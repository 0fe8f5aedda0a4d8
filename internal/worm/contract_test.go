package worm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/internal/custodytest/storetest"
	"ugallu.io/forensics/internal/worm"
)

const mebibyte = 1 << 20

func TestMemoryKeepsTheContract(t *testing.T) {
	keepsContract(t, worm.NewMemory())
}

func TestS3KeepsTheContract(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) { keepsContract(t, open(t, server.Endpoint, server)) })
}

// keepsContract is what every Store promises.
func keepsContract(t *testing.T, store worm.Store) {
	t.Helper()
	cases := map[string]func(*testing.T, worm.Store){
		"reads back what it stored":          readsBack,
		"refuses to replace":                 refusesToReplace,
		"keeps nothing of a torn body":       keepsNothingOfTornBody,
		"names what it does not have":        namesWhatItDoesNotHave,
		"refuses a lock that does not hold":  refusesUselessLock,
		"stops when the context has ended":   stopsWithContext,
		"keeps one of two concurrent bodies": keepsOneOfTwo,
	}
	for name, check := range cases {
		t.Run(name, func(t *testing.T) { check(t, store) })
	}
}

func readsBack(t *testing.T, store worm.Store) {
	sizes := map[string]int{
		"empty":               0,
		"one byte":            1,
		"first buffer":        64 << 10,
		"beyond first buffer": 64<<10 + 1,
		"second buffer":       512<<10 + 1,
		"just no part":        5*mebibyte - 1,
		"one part":            5 * mebibyte,
		"one part and a byte": 5*mebibyte + 1,
		"parts of two sizes":  (16*5+2*8)*mebibyte + 7,
	}
	for name, size := range sizes {
		t.Run(name, func(t *testing.T) {
			data, lock, key := randomBytes(size), lockFor(time.Hour), "reads/"+strings.ReplaceAll(name, " ", "-")
			put, err := store.Put(t.Context(), key, onlyReader{bytes.NewReader(data)}, lock)
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(data)
			want := worm.Object{
				Key: key, VersionID: put.VersionID, Size: int64(size), SHA256: hex.EncodeToString(sum[:]), Lock: lock,
			}
			if diff := cmp.Diff(want, put); diff != "" {
				t.Errorf("put (-want +got):\n%s", diff)
			}
			if put.VersionID == "" {
				t.Error("no version")
			}
			want.SHA256 = ""
			for _, version := range []string{"", put.VersionID} {
				got, err := store.Stat(t.Context(), key, version)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("stat of version %q (-want +got):\n%s", version, diff)
				}
				if !bytes.Equal(data, readAll(t, store, key, version)) {
					t.Errorf("other bytes in version %q", version)
				}
			}
		})
	}
}

func refusesToReplace(t *testing.T, store worm.Store) {
	for name, size := range map[string]int{"whole": 10, "parts": 17 * mebibyte} {
		t.Run(name, func(t *testing.T) {
			key := "taken/" + name
			first, err := store.Put(t.Context(), key, strings.NewReader("first"), lockFor(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			_, err = store.Put(t.Context(), key, bytes.NewReader(randomBytes(size)), lockFor(2*time.Hour))
			if !errors.Is(err, worm.ErrExists) {
				t.Fatalf("got %v, want ErrExists", err)
			}
			stat, err := store.Stat(t.Context(), key, "")
			if err != nil {
				t.Fatal(err)
			}
			first.SHA256 = ""
			if diff := cmp.Diff(first, stat); diff != "" {
				t.Errorf("the newest version changed (-want +got):\n%s", diff)
			}
			if got := string(readAll(t, store, key, "")); got != "first" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func keepsNothingOfTornBody(t *testing.T, store worm.Store) {
	torn := map[string]struct {
		size int
		err  error
	}{
		"own error":                  {10, errors.New("disk gone")},
		"unexpected end":             {10, io.ErrUnexpectedEOF},
		"unexpected end after parts": {33 * mebibyte, io.ErrUnexpectedEOF},
	}
	for name, test := range torn {
		t.Run(name, func(t *testing.T) {
			key := "torn/" + strings.ReplaceAll(name, " ", "-")
			body := io.MultiReader(bytes.NewReader(randomBytes(test.size)), iotest.ErrReader(test.err))
			if _, err := store.Put(t.Context(), key, body, lockFor(time.Hour)); !errors.Is(err, test.err) {
				t.Fatalf("got %v, want %v", err, test.err)
			}
			if _, err := store.Stat(t.Context(), key, ""); !errors.Is(err, worm.ErrNotFound) {
				t.Fatalf("stat: got %v, want ErrNotFound", err)
			}
			if _, err := store.Put(t.Context(), key, strings.NewReader("whole"), lockFor(time.Hour)); err != nil {
				t.Fatalf("second put: %v", err)
			}
		})
	}
}

func namesWhatItDoesNotHave(t *testing.T, store worm.Store) {
	known, err := store.Put(t.Context(), "known", strings.NewReader("x"), lockFor(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	unknownVersion := sibling(known.VersionID)
	for name, test := range map[string]struct{ key, version string }{
		"key":            {"unknown", ""},
		"key of version": {"unknown", unknownVersion},
		"version":        {"known", unknownVersion},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := store.Stat(t.Context(), test.key, test.version); !errors.Is(err, worm.ErrNotFound) {
				t.Errorf("stat: got %v, want ErrNotFound", err)
			}
			body, err := store.Open(t.Context(), test.key, test.version)
			if !errors.Is(err, worm.ErrNotFound) {
				t.Errorf("open: got %v, want ErrNotFound", err)
			}
			if err == nil {
				closeBody(t, body)
			}
		})
	}
}

// sibling has the form of a version id that the store gives, and is not the one that it gave.
func sibling(version string) string {
	last := "0"
	if strings.HasSuffix(version, last) {
		last = "1"
	}
	return version[:len(version)-1] + last
}

func refusesUselessLock(t *testing.T, store worm.Store) {
	for name, lock := range map[string]worm.Lock{
		"no mode":      {RetainUntil: time.Now().Add(time.Hour)},
		"unknown mode": {Mode: "FOREVER", RetainUntil: time.Now().Add(time.Hour)},
		"no date":      {Mode: "COMPLIANCE"},
		"past date":    {Mode: "COMPLIANCE", RetainUntil: time.Now().Add(-time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := store.Put(t.Context(), "useless", strings.NewReader("x"), lock); err == nil {
				t.Error("took it")
			}
			if _, err := store.Stat(t.Context(), "useless", ""); !errors.Is(err, worm.ErrNotFound) {
				t.Errorf("stat: got %v, want ErrNotFound", err)
			}
		})
	}
}

func stopsWithContext(t *testing.T, store worm.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.Put(ctx, "stopped", strings.NewReader("x"), lockFor(time.Hour)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func keepsOneOfTwo(t *testing.T, store worm.Store) {
	const writers = 2
	results := make(chan error, writers)
	for range writers {
		go func() {
			_, err := store.Put(t.Context(), "raced", bytes.NewReader(randomBytes(17*mebibyte)), lockFor(time.Hour))
			results <- err
		}()
	}
	stored := 0
	for range writers {
		err := <-results
		if err == nil {
			stored++
		}
	}
	if stored != 1 {
		t.Errorf("%d of %d puts succeeded, want one", stored, writers)
	}
}

// onlyReader hides every other method, as a pipe does.
type onlyReader struct{ io.Reader }

func lockFor(duration time.Duration) worm.Lock {
	return worm.Lock{Mode: "COMPLIANCE", RetainUntil: time.Now().Add(duration).UTC().Truncate(time.Second)}
}

func randomBytes(size int) []byte {
	data := make([]byte, size)
	source := rand.NewChaCha8([32]byte{byte(size)})
	_, _ = source.Read(data)
	return data
}

func readAll(t *testing.T, store worm.Reader, key, version string) []byte {
	t.Helper()
	body, err := store.Open(t.Context(), key, version)
	if err != nil {
		t.Fatal(err)
	}
	defer closeBody(t, body)
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func closeBody(t *testing.T, body io.Closer) {
	t.Helper()
	if err := body.Close(); err != nil {
		t.Error(err)
	}
}
