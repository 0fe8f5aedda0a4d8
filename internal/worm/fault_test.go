package worm_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"ugallu.io/forensics/internal/custodytest/storetest"
	"ugallu.io/forensics/internal/worm"
)

func patient(c *worm.Config) { c.Patience = time.Minute }

// gated gives its second half only when it may.
type gated struct {
	first, second *bytes.Reader
	reached, open chan struct{}
}

func newGated(data []byte) *gated {
	half := len(data) / 2
	return &gated{bytes.NewReader(data[:half]), bytes.NewReader(data[half:]), make(chan struct{}), make(chan struct{})}
}

func (g *gated) Read(p []byte) (int, error) {
	if n, err := g.first.Read(p); err == nil {
		return n, nil
	}
	if g.second.Len() == int(g.second.Size()) {
		close(g.reached)
		<-g.open
	}
	return g.second.Read(p)
}

type putResult struct {
	object worm.Object
	err    error
}

func putBehind(t *testing.T, store worm.Store, key string, body io.Reader) chan putResult {
	done := make(chan putResult, 1)
	go func() {
		object, err := store.Put(t.Context(), key, body, lockFor(time.Hour))
		done <- putResult{object, err}
	}()
	return done
}

// awaitRequests waits until the client has sent so many more.
func awaitRequests(t *testing.T, proxy *storetest.Proxy, more int64) {
	t.Helper()
	want := proxy.Requests() + more
	for deadline := time.Now().Add(30 * time.Second); proxy.Requests() < want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d requests, want %d", proxy.Requests(), want)
		}
	}
}

func stored(t *testing.T, store worm.Store, key string, data []byte) {
	t.Helper()
	if !bytes.Equal(readAll(t, store, key, ""), data) {
		t.Errorf("%s holds other bytes", key)
	}
}

func TestS3OutlivesAStoreThatIsKilledAndStartedAgain(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		proxy := storetest.NewProxy(t, server)
		store, data := open(t, proxy.Endpoint, server, patient), randomBytes(40*mebibyte)
		body := newGated(data)
		done := putBehind(t, store, "outlives", body)
		<-body.reached
		server.Kill(t)
		close(body.open)
		awaitRequests(t, proxy, 4) // more than a store without patience is asked
		server.Start(t)
		if result := <-done; result.err != nil {
			t.Fatal(result.err)
		}
		stored(t, store, "outlives", data)
		noUnfinishedUpload(t, server)
	})
}

func TestS3WithoutPatienceReportsAStoreThatIsGone(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		store, data := open(t, server.Endpoint, server), randomBytes(40*mebibyte)
		body := newGated(data)
		done := putBehind(t, store, "gone", body)
		<-body.reached
		server.Kill(t)
		close(body.open)
		if result := <-done; !errors.Is(result.err, worm.ErrUnavailable) || worm.NeedsOperator(result.err) {
			t.Errorf("got %v, want ErrUnavailable", result.err)
		}
		server.Start(t)
		if _, err := store.Put(t.Context(), "gone", bytes.NewReader(data), lockFor(time.Hour)); err != nil {
			t.Fatal(err)
		}
		stored(t, store, "gone", data)
	})
}

func TestS3WaitsForAStoreThatIsBusy(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		answers := make(chan int, 4) // more than a store without patience is asked
		for _, status := range []int{http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusInternalServerError} {
			answers <- status
		}
		proxy := storetest.NewProxy(t, server)
		proxy.Intercept(func(r *http.Request) int {
			if r.Method != http.MethodPut {
				return 0
			}
			select {
			case status := <-answers:
				return status
			default:
				return 0
			}
		})
		store, data := open(t, proxy.Endpoint, server, patient), randomBytes(11*mebibyte)
		if _, err := store.Put(t.Context(), "busy", bytes.NewReader(data), lockFor(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if len(answers) > 0 {
			t.Errorf("%d refusals were not asked for", len(answers))
		}
		stored(t, store, "busy", data)
		noUnfinishedUpload(t, server)
	})
}

func TestS3AsksABusyStoreAFewTimes(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		proxy := storetest.NewProxy(t, server)
		proxy.Intercept(func(*http.Request) int { return http.StatusServiceUnavailable })
		_, err := open(t, proxy.Endpoint, server).Put(t.Context(), "busy", bytes.NewReader(nil), lockFor(time.Hour))
		if !errors.Is(err, worm.ErrUnavailable) || proxy.Requests() != 3 {
			t.Errorf("%v after %d requests, want ErrUnavailable after 3", err, proxy.Requests())
		}
	})
}

func TestS3StoresThroughASlowConnection(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		proxy := storetest.NewProxy(t, server)
		proxy.Slow(3 * time.Millisecond)
		store, data := open(t, proxy.Endpoint, server), randomBytes(11*mebibyte)
		if _, err := store.Put(t.Context(), "slow", bytes.NewReader(data), lockFor(time.Hour)); err != nil {
			t.Fatal(err)
		}
		stored(t, store, "slow", data)
	})
}

func TestS3PutWhoseAnswerWasLostIsNeverReportedAsFailedAndForgotten(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		for name, size := range map[string]int{"whole": 10, "parts": 6 * mebibyte} {
			t.Run(name, func(t *testing.T) {
				proxy := storetest.NewProxy(t, server)
				var lost atomic.Bool
				proxy.Lose(func(r *http.Request) bool {
					completes := r.URL.Query().Has("uploadId") && r.Method == http.MethodPost
					return (completes || size < mebibyte) && lost.CompareAndSwap(false, true)
				})
				store, data := open(t, proxy.Endpoint, server, patient), randomBytes(size)
				_, err := store.Put(t.Context(), "lost/"+name, bytes.NewReader(data), lockFor(time.Hour))
				if !errors.Is(err, worm.ErrExists) && !errors.Is(err, worm.ErrUnavailable) {
					t.Errorf("got %v, want ErrExists or ErrUnavailable", err)
				}
				stored(t, store, "lost/"+name, data)
				if _, err := store.Put(t.Context(), "lost/"+name, bytes.NewReader(data), lockFor(time.Hour)); !errors.Is(err, worm.ErrExists) {
					t.Errorf("second put: got %v, want ErrExists", err)
				}
			})
		}
	})
}

func TestS3NamesAFullStoreAndGoesOnWhenThereIsRoom(t *testing.T) {
	starts := map[string]func(testing.TB, string) *storetest.Server{"MinIO": storetest.MinIO, "versitygw": storetest.Versity}
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			folder, resize := storetest.SmallDisk(t, "96")
			server := start(t, folder)
			store, data := open(t, server.Endpoint, server, patient), randomBytes(120*mebibyte)
			_, err := store.Put(t.Context(), "full", bytes.NewReader(data), lockFor(time.Hour))
			if errors.Is(err, worm.ErrUnavailable) {
				// MinIO can lose the upload when it runs into the end of its disk, and says what is wrong from then on.
				_, err = store.Put(t.Context(), "full", bytes.NewReader(data), lockFor(time.Hour))
			}
			if !errors.Is(err, worm.ErrFull) || !worm.NeedsOperator(err) {
				t.Fatalf("got %v, want ErrFull", err)
			}
			resize("800")
			// A store may look at its disk again only after a while.
			for deadline := time.Now().Add(time.Minute); err != nil; time.Sleep(time.Second) {
				_, err = store.Put(t.Context(), "full", bytes.NewReader(data), lockFor(time.Hour))
				if err != nil && (!errors.Is(err, worm.ErrFull) || time.Now().After(deadline)) {
					t.Fatal(err)
				}
			}
			stored(t, store, "full", data)
			noUnfinishedUpload(t, server)
		})
	}
}
