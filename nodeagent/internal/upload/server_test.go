package upload_test

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/custodytest/storetest"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/upload"
)

const (
	mebibyte  = 1 << 20
	bigFrame  = 2 * mebibyte
	bigFirst  = 12 * mebibyte
	bigStream = 41 * mebibyte
)

// agent reaches a store with the credential of a node, and keeps what it recorded.
type agent struct {
	store    *worm.S3
	recorded []v1alpha1.StoredObject
}

func newAgent(t *testing.T, server *storetest.Server, endpoint string, patience time.Duration) *agent {
	t.Helper()
	credential := server.PutOnly(t)
	store, err := worm.NewS3(worm.Config{
		Endpoint: endpoint, Bucket: storetest.Bucket, AccessKey: credential.AccessKey, SecretKey: credential.SecretKey,
		SessionToken: credential.SessionToken, Patience: patience,
	})
	must(t, err)
	return &agent{store: store}
}

// try is one life of the agent. within is called when so many bytes have been written.
func (a *agent) try(t *testing.T, data []byte, at int, within func()) (upload.Result, error) {
	t.Helper()
	o := options(bigFirst)
	o.Resume = a.recorded
	o.Stored = func(segment v1alpha1.StoredObject) error {
		a.recorded = append(a.recorded, segment)
		return nil
	}
	w := upload.NewWriter(t.Context(), a.store, o)
	err := frames(w, data[:at], bigFrame)
	if err == nil {
		within()
		err = frames(w, data[at:], bigFrame)
	}
	if err != nil {
		w.Abort(err)
		return upload.Result{}, err
	}
	return w.Finish()
}

func nothing() {}

// verify reads everything back with the administrator's credential.
func verify(t *testing.T, server *storetest.Server, result upload.Result, data []byte) {
	t.Helper()
	reader, err := worm.NewS3(worm.Config{
		Endpoint: server.Endpoint, Bucket: storetest.Bucket, AccessKey: server.AccessKey, SecretKey: server.SecretKey,
	})
	must(t, err)
	if !bytes.Equal(fetch(t, reader, result.Segments), data) {
		t.Error("segments do not add up to the stream")
	}
	want := shape(store(t, worm.NewMemory(), options(bigFirst), data, bigFrame))
	if diff := cmp.Diff(want, shape(result)); diff != "" {
		t.Errorf("result (-undisturbed +stored):\n%s", diff)
	}
	named := map[string]bool{}
	for _, key := range result.Abandoned {
		named[key] = true
	}
	for _, object := range result.Segments {
		named[object.Key] = true
	}
	for object := range server.Admin.ListObjects(t.Context(), storetest.Bucket, minio.ListObjectsOptions{Recursive: true}) {
		must(t, object.Err)
		if !named[object.Key] && !strings.HasSuffix(object.Key, ".claim") {
			t.Errorf("%s is not named", object.Key)
		}
	}
}

func onEachServer(t *testing.T, check func(*testing.T, *storetest.Server)) {
	t.Helper()
	for name, start := range storetest.Servers() {
		t.Run(name, func(t *testing.T) { check(t, start(t)) })
	}
}

func TestPatientAgentRepeatsNothingWhenItsStoreIsKilled(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		proxy := storetest.NewProxy(t, server)
		a, data := newAgent(t, server, proxy.Endpoint, time.Minute), random(bigStream)
		restarted := make(chan struct{})
		result, err := a.try(t, data, 16*mebibyte, func() {
			server.Kill(t)
			go func() {
				defer close(restarted)
				time.Sleep(2 * time.Second)
				server.Start(t)
			}()
		})
		<-restarted
		must(t, err)
		verify(t, server, result, data)
		if len(result.Abandoned) > 0 {
			t.Errorf("abandoned %v", result.Abandoned)
		}
	})
}

func TestImpatientAgentResumesWhenItsStoreIsBack(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		a, data := newAgent(t, server, server.Endpoint, 0), random(bigStream)
		if _, err := a.try(t, data, 16*mebibyte, func() { server.Kill(t) }); !errors.Is(err, worm.ErrUnavailable) {
			t.Fatalf("error %v, want ErrUnavailable", err)
		}
		server.Start(t)
		recorded := len(a.recorded)
		result, err := a.try(t, data, 0, nothing)
		must(t, err)
		verify(t, server, result, data)
		if recorded != 1 || len(result.Abandoned) != 1 {
			t.Errorf("%d segments were recorded, abandoned %v", recorded, result.Abandoned)
		}
	})
}

func TestAgentNamesTheSegmentWhoseAnswerWasLost(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		proxy := storetest.NewProxy(t, server)
		a, data := newAgent(t, server, proxy.Endpoint, 0), random(bigStream)
		var completed atomic.Int64
		proxy.Lose(func(r *http.Request) bool {
			return r.Method == http.MethodPost && r.URL.Query().Has("uploadId") && completed.Add(1) == 2
		})
		if _, err := a.try(t, data, 0, nothing); err == nil {
			t.Fatal("the lost answer is not reported")
		}
		result, err := a.try(t, data, 0, nothing)
		must(t, err)
		verify(t, server, result, data)
		if diff := cmp.Diff([]string{options(0).Folder + "/1"}, result.Abandoned); diff != "" {
			t.Errorf("abandoned (-want +got):\n%s", diff)
		}
	})
}

func TestAgentSaysThatTheStoreIsFullAndResumesWhenThereIsRoom(t *testing.T) {
	starts := map[string]func(testing.TB, string) *storetest.Server{"MinIO": storetest.MinIO, "versitygw": storetest.Versity}
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			folder, resize := storetest.SmallDisk(t, "40")
			server := start(t, folder)
			a, data := newAgent(t, server, server.Endpoint, 0), random(bigStream)
			_, err := a.try(t, data, 0, nothing)
			for lives := 0; err != nil && !errors.Is(err, worm.ErrFull); lives++ {
				if lives == 5 {
					t.Fatalf("error %v, want ErrFull", err)
				}
				_, err = a.try(t, data, 0, nothing)
			}
			resize("400")
			var result upload.Result
			for deadline := time.Now().Add(time.Minute); err != nil; time.Sleep(time.Second) {
				result, err = a.try(t, data, 0, nothing)
				if err != nil && (!worm.NeedsOperator(err) || time.Now().After(deadline)) {
					t.Fatal(err)
				}
			}
			verify(t, server, result, data)
		})
	}
}
