package play

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// store is a forwarded port to the write-once store with the credentials of an analyst.
type store struct {
	*minio.Client
	forward *exec.Cmd
	drained chan error
}

// analyst opens the way to the store once; it stays open until the play ends.
func (p *Play) analyst(ctx context.Context) (*store, error) {
	if p.store != nil {
		return p.store, nil
	}
	var secret corev1.Secret
	key := client.ObjectKey{Namespace: "ugallu-demo", Name: "ugallu-analyst"}
	if err := p.Get(ctx, key, &secret); err != nil {
		return nil, fmt.Errorf("get the analyst's credentials: %w", err)
	}
	opened, address, err := p.forwardStore(ctx)
	if err != nil {
		return nil, err
	}
	p.store = opened
	opened.Client, err = minio.New(address, &minio.Options{
		Creds:  credentials.NewStaticV4(string(secret.Data["access-key"]), string(secret.Data["secret-key"]), ""),
		Region: "us-east-1",
	})
	if err != nil {
		return nil, fmt.Errorf("make a client of the store: %w", err)
	}
	return opened, nil
}

func (p *Play) forwardStore(ctx context.Context) (*store, string, error) {
	forward := exec.CommandContext(ctx, p.env.Kubectl, "-n", "ugallu-demo", "port-forward", "svc/minio", ":9000") // #nosec G204 -- fixed
	forward.Env = append(forward.Environ(), "KUBECONFIG="+p.env.Kubeconfig)
	stdout, err := forward.StdoutPipe()
	if err != nil {
		return nil, "", fmt.Errorf("pipe of the port forward: %w", err)
	}
	var stderr bytes.Buffer
	forward.Stderr = &stderr
	if err := forward.Start(); err != nil {
		return nil, "", fmt.Errorf("start the port forward: %w", err)
	}
	opened := &store{forward: forward, drained: make(chan error, 1)}
	lines := bufio.NewReader(stdout)
	first, err := lines.ReadString('\n')
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("forward a port to the store: %w: %s", err, stderr.String()), forward.Wait())
	}
	go func() {
		_, err := io.Copy(io.Discard, lines)
		opened.drained <- err
	}()
	_, rest, found := strings.Cut(first, "Forwarding from ")
	if !found {
		return nil, "", errors.Join(fmt.Errorf("kubectl port-forward said %q", first), opened.close())
	}
	return opened, strings.Fields(rest)[0], nil
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

// read gets one stored version, and demands the size, digest and lock that were claimed for it.
func (s *store) read(ctx context.Context, bucket string, claimed v1alpha1.StoredObject) ([]byte, error) {
	object, err := s.GetObject(ctx, bucket, claimed.Key, minio.GetObjectOptions{VersionID: claimed.VersionID})
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", claimed.Key, err)
	}
	data, err := io.ReadAll(object)
	if err := errors.Join(err, object.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", claimed.Key, err)
	}
	info, err := s.StatObject(ctx, bucket, claimed.Key, minio.StatObjectOptions{VersionID: claimed.VersionID})
	if err != nil {
		return nil, fmt.Errorf("stat %s: %w", claimed.Key, err)
	}
	until, err := time.Parse(time.RFC3339, info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"))
	if err != nil {
		return nil, fmt.Errorf("retention of %s: %w", claimed.Key, err)
	}
	mode := info.Metadata.Get("X-Amz-Object-Lock-Mode")
	var claims checks
	claims.demand(int64(len(data)) == claimed.Size, "%s has %d bytes, claimed are %d", claimed.Key, len(data), claimed.Size)
	claims.demand(evidence.Digest(data) == claimed.SHA256, "%s has sha256 %s, claimed is %s", claimed.Key, evidence.Digest(data), claimed.SHA256)
	claims.demand(mode == string(v1alpha1.LockCompliance), "%s is locked in mode %q", claimed.Key, mode)
	claims.demand(!until.Before(claimed.RetainUntil.Truncate(time.Second)), "%s is locked until %s, claimed is %s", claimed.Key, until, claimed.RetainUntil)
	return data, claims.err()
}
