package bucket

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"ugallu.io/forensics/internal/worm"
)

const (
	headerLockMode  = "X-Amz-Object-Lock-Mode"
	headerLockUntil = "X-Amz-Object-Lock-Retain-Until-Date"
	defaultRegion   = "us-east-1"
)

// Settings say where the store is and how to be let in.
type Settings struct {
	// Endpoint with scheme and without path.
	Endpoint string
	Region   string
	Name     string
	// CAFile in PEM; the system's roots count when it is empty.
	CAFile string
	// CredentialsFile in the format of AWS; empty is the usual one.
	CredentialsFile string
	// Profile of that file; empty is the usual one.
	Profile string
}

// Bucket reads versions. It counts what it reads.
type Bucket struct {
	core  minio.Core
	name  string
	bytes atomic.Int64
}

// Open takes credentials from the environment (AWS_*, then MINIO_*) or else from a credentials file. It does not connect.
func Open(settings Settings) (*Bucket, error) {
	endpoint, err := url.Parse(settings.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("parse endpoint: %w", err)
	}
	if endpoint.Host == "" || (endpoint.Scheme != "http" && endpoint.Scheme != "https") {
		return nil, fmt.Errorf("endpoint %q is not http(s)://host[:port]", settings.Endpoint)
	}
	transport, err := newTransport(endpoint.Scheme == "https", settings.CAFile)
	if err != nil {
		return nil, err
	}
	region := settings.Region
	if region == "" {
		region = defaultRegion
	}
	core, err := minio.NewCore(endpoint.Host, &minio.Options{
		Creds: credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.EnvMinio{},
			&credentials.FileAWSCredentials{Filename: settings.CredentialsFile, Profile: settings.Profile},
		}),
		Secure: endpoint.Scheme == "https", Transport: transport, Region: region,
	})
	if err != nil {
		return nil, fmt.Errorf("make client of %s: %w", settings.Endpoint, err)
	}
	return &Bucket{core: *core, name: settings.Name}, nil
}

// Bytes is how much was read so far.
func (b *Bucket) Bytes() int64 { return b.bytes.Load() }

// Stat returns what the store says of one version, or of the newest when versionID is empty.
func (b *Bucket) Stat(ctx context.Context, key, versionID string) (worm.Object, error) {
	info, err := b.core.StatObject(ctx, b.name, key, minio.StatObjectOptions{VersionID: versionID})
	if err != nil {
		return worm.Object{}, readError("stat", key, err)
	}
	object := worm.Object{Key: key, VersionID: info.VersionID, Size: info.Size}
	object.Lock.Mode = info.Headers.Get(headerLockMode)
	if until := info.Headers.Get(headerLockUntil); until != "" {
		if object.Lock.RetainUntil, err = time.Parse(time.RFC3339, until); err != nil {
			return worm.Object{}, fmt.Errorf("stat %s: parse retain-until: %w", key, err)
		}
		object.Lock.RetainUntil = object.Lock.RetainUntil.UTC()
	}
	return object, nil
}

// Open streams one version, or the newest when versionID is empty.
func (b *Bucket) Open(ctx context.Context, key, versionID string) (io.ReadCloser, error) {
	return b.get(ctx, key, minio.GetObjectOptions{VersionID: versionID})
}

// OpenRange streams length bytes of a version from offset on.
func (b *Bucket) OpenRange(ctx context.Context, key, versionID string, offset, length int64) (io.ReadCloser, error) {
	options := minio.GetObjectOptions{VersionID: versionID}
	if err := options.SetRange(offset, offset+length-1); err != nil {
		return nil, fmt.Errorf("open %d bytes of %s at %d: %w", length, key, offset, err)
	}
	body, err := b.get(ctx, key, options)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(body, length), body}, nil
}

func (b *Bucket) get(ctx context.Context, key string, options minio.GetObjectOptions) (io.ReadCloser, error) {
	body, _, _, err := b.core.GetObject(ctx, b.name, key, options)
	if err != nil {
		return nil, readError("open", key, err)
	}
	return &counted{ReadCloser: body, bytes: &b.bytes}, nil
}

// counted counts what is read.
type counted struct {
	io.ReadCloser
	bytes *atomic.Int64
}

// Read counts.
func (c *counted) Read(to []byte) (int, error) {
	n, err := c.ReadCloser.Read(to)
	c.bytes.Add(int64(n))
	return n, err
}

// List returns the keys that begin with prefix, in order.
func (b *Bucket) List(ctx context.Context, prefix string) ([]string, error) {
	var keys []string
	for object := range b.core.Client.ListObjects(ctx, b.name, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if object.Err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, object.Err)
		}
		keys = append(keys, object.Key)
	}
	slices.Sort(keys)
	return keys, nil
}

// readError tells an object that is not there from a store that does not answer.
func readError(act, key string, err error) error {
	var answer minio.ErrorResponse
	if errors.As(err, &answer) && answer.Code != "NoSuchBucket" &&
		(answer.StatusCode == http.StatusNotFound || answer.StatusCode == http.StatusMethodNotAllowed || answer.Code == "NoSuchVersion") {
		return fmt.Errorf("%s %s: %w: %w", act, key, worm.ErrNotFound, err)
	}
	return fmt.Errorf("%s %s: %w", act, key, err)
}

func newTransport(secure bool, caFile string) (*http.Transport, error) {
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, fmt.Errorf("make transport: %w", err)
	}
	// Bytes are hashed as they lie in the store.
	transport.DisableCompression = true
	if caFile == "" {
		return transport, nil
	}
	data, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("read CA file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("CA file %s has no PEM certificate", caFile)
	}
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	return transport, nil
}

// ParseURL splits s3://bucket/key and, if there is one, ?versionId=….
func ParseURL(text string) (bucket, key, versionID string, err error) {
	parsed, err := url.Parse(text)
	if err != nil {
		return "", "", "", fmt.Errorf("parse URL: %w", err)
	}
	key = strings.TrimPrefix(parsed.Path, "/")
	if parsed.Scheme != "s3" || parsed.Host == "" || key == "" {
		return "", "", "", fmt.Errorf("%q is not s3://bucket/key", text)
	}
	return parsed.Host, key, parsed.Query().Get("versionId"), nil
}
