//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// Where the demonstration overlay keeps the store and the credentials of a person who analyses.
const (
	storeNamespace = "ugallu-demo"
	storeService   = "minio"
	analystSecret  = "ugallu-analyst"
)

// store is a forwarded port to the write-once store and the analyst's view of it.
type store struct {
	*minio.Client
	address string
	forward *exec.Cmd
	drained chan error
}

// analyst opens the way to the store once for all tests.
func (c *cluster) analyst(tb testing.TB) *store {
	tb.Helper()
	c.opening.Lock()
	defer c.opening.Unlock()
	if c.store == nil {
		opened, err := c.openStore()
		if err != nil {
			tb.Fatal(err)
		}
		c.store = opened
		if c.store.Client, err = c.storeClient(tb.Context(), storeNamespace, analystSecret); err != nil {
			tb.Fatal(err)
		}
	}
	return c.store
}

// leaveStore closes the way to the store; whoever needs it next opens it anew.
func (c *cluster) leaveStore(tb testing.TB) {
	tb.Helper()
	c.opening.Lock()
	defer c.opening.Unlock()
	if c.store == nil {
		return
	}
	if err := c.store.close(); err != nil {
		tb.Fatal(err)
	}
	c.store = nil
}

// openStore starts the port forward; it lives until close, longer than any one test.
func (c *cluster) openStore() (*store, error) {
	forward := exec.CommandContext(context.Background(), c.path, "-n", storeNamespace, "port-forward", "svc/"+storeService, ":9000") // #nosec G204 -- fixed
	forward.Env = append(forward.Environ(), "KUBECONFIG="+c.kubeconfig)
	stdout, err := forward.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("pipe of the port forward: %w", err)
	}
	var stderr bytes.Buffer
	forward.Stderr = &stderr
	if err := forward.Start(); err != nil {
		return nil, fmt.Errorf("start the port forward: %w", err)
	}
	opened := &store{forward: forward, drained: make(chan error, 1)}
	lines := bufio.NewReader(stdout)
	first, err := lines.ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("forward a port to the store: %w: %s", err, stderr.String()), forward.Wait())
	}
	go func() {
		_, err := io.Copy(io.Discard, lines)
		opened.drained <- err
	}()
	_, rest, found := strings.Cut(first, "Forwarding from ")
	if !found {
		return nil, errors.Join(fmt.Errorf("kubectl port-forward said %q", first), opened.close())
	}
	opened.address = strings.Fields(rest)[0]
	return opened, nil
}

func (s *store) close() error {
	if err := s.forward.Process.Kill(); err != nil {
		return fmt.Errorf("end the port forward: %w", err)
	}
	drained := <-s.drained
	var ended *exec.ExitError
	if err := s.forward.Wait(); err != nil && !errors.As(err, &ended) {
		return errors.Join(err, drained)
	}
	return drained
}

// storeClient speaks to the store with the credentials in a Secret.
func (c *cluster) storeClient(ctx context.Context, namespace, name string) (*minio.Client, error) {
	var secret corev1.Secret
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &secret); err != nil {
		return nil, fmt.Errorf("get credentials %s/%s: %w", namespace, name, err)
	}
	opened, err := minio.New(c.store.address, &minio.Options{
		Creds:  credentials.NewStaticV4(string(secret.Data["access-key"]), string(secret.Data["secret-key"]), ""),
		Region: "us-east-1",
	})
	if err != nil {
		return nil, fmt.Errorf("make a client of the store: %w", err)
	}
	return opened, nil
}

// fetch reads one stored version and demands the size, digest and lock that were claimed for it.
func (s *store) fetch(tb testing.TB, bucket string, claimed v1alpha1.StoredObject) []byte {
	tb.Helper()
	options := minio.GetObjectOptions{VersionID: claimed.VersionID}
	object, err := s.GetObject(tb.Context(), bucket, claimed.Key, options)
	if err != nil {
		tb.Fatalf("get %s: %v", claimed.Key, err)
	}
	data, err := io.ReadAll(object)
	if err := errors.Join(err, object.Close()); err != nil {
		tb.Fatalf("read %s: %v", claimed.Key, err)
	}
	if int64(len(data)) != claimed.Size || evidence.Digest(data) != claimed.SHA256 {
		tb.Errorf("%s holds %d bytes with sha256 %s, claimed are %d and %s", claimed.Key,
			len(data), evidence.Digest(data), claimed.Size, claimed.SHA256)
	}
	s.locked(tb, bucket, claimed)
	return data
}

// locked demands that the version is locked in compliance mode for at least as long as claimed.
func (s *store) locked(tb testing.TB, bucket string, claimed v1alpha1.StoredObject) {
	tb.Helper()
	info, err := s.StatObject(tb.Context(), bucket, claimed.Key, minio.StatObjectOptions{VersionID: claimed.VersionID})
	if err != nil {
		tb.Fatalf("stat %s: %v", claimed.Key, err)
	}
	if mode := info.Metadata.Get("X-Amz-Object-Lock-Mode"); mode != "COMPLIANCE" {
		tb.Errorf("%s is locked in mode %q, want COMPLIANCE", claimed.Key, mode)
	}
	until, err := time.Parse(time.RFC3339, info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"))
	if err != nil {
		tb.Fatalf("retention of %s: %v", claimed.Key, err)
	}
	if !until.Truncate(time.Second).Equal(claimed.RetainUntil.Truncate(time.Second)) || until.Before(time.Now().AddDate(0, 11, 0)) {
		tb.Errorf("%s is locked until %s, claimed is %s and a year is configured", claimed.Key, until, claimed.RetainUntil.UTC())
	}
}

// versions lists every version below a prefix.
func (s *store) versions(tb testing.TB, bucket, prefix string) []minio.ObjectInfo {
	tb.Helper()
	var found []minio.ObjectInfo
	for object := range s.ListObjects(tb.Context(), bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true, WithVersions: true}) {
		if object.Err != nil {
			tb.Fatalf("list %s: %v", prefix, object.Err)
		}
		found = append(found, object)
	}
	return found
}

// splitURL takes s3://bucket/key apart.
func splitURL(tb testing.TB, url string) (bucket, key string) {
	tb.Helper()
	rest, is := strings.CutPrefix(url, "s3://")
	bucket, key, both := strings.Cut(rest, "/")
	if !is || !both {
		tb.Fatalf("%q is not an s3 url", url)
	}
	return bucket, key
}
