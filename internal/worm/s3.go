package worm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// maxRetries of one request. Reconcilers and agents repeat the whole operation, so that a dead store is reported
// within seconds instead of minutes.
const maxRetries = 3

// Headers in which every S3 server reports the lock of a version to a HEAD.
const (
	headerLockMode  = "X-Amz-Object-Lock-Mode"
	headerLockUntil = "X-Amz-Object-Lock-Retain-Until-Date"
)

// Config is how to reach one bucket with Object Lock.
type Config struct {
	// Endpoint with scheme and without path.
	Endpoint string
	Region   string
	Bucket   string
	// CABundle is PEM; the system's roots count when it is empty.
	CABundle  string
	AccessKey string
	SecretKey string
	// SessionToken belongs to a temporary credential; empty otherwise.
	SessionToken string
}

// S3 is a bucket with Object Lock. Put needs s3:PutObject, s3:PutObjectRetention and s3:AbortMultipartUpload only.
type S3 struct {
	core   minio.Core
	bucket string
}

// NewS3 checks the configuration; it does not connect.
func NewS3(config Config) (*S3, error) {
	endpoint, err := url.Parse(config.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("parse store endpoint: %w", err)
	}
	if endpoint.Host == "" || (endpoint.Scheme != "http" && endpoint.Scheme != "https") {
		return nil, fmt.Errorf("store endpoint %q is not http(s)://host[:port]", config.Endpoint)
	}
	if config.Bucket == "" || config.AccessKey == "" || config.SecretKey == "" {
		return nil, errors.New("store needs a bucket, an access key and a secret key")
	}
	secure := endpoint.Scheme == "https"
	transport, err := newTransport(secure, config.CABundle)
	if err != nil {
		return nil, err
	}
	region := config.Region
	if region == "" {
		region = "us-east-1" // a region given spares the request for the bucket's location, which needs a permission
	}
	core, err := minio.NewCore(endpoint.Host, &minio.Options{
		Creds:      credentials.NewStaticV4(config.AccessKey, config.SecretKey, config.SessionToken),
		Secure:     secure,
		Transport:  transport,
		Region:     region,
		MaxRetries: maxRetries,
	})
	if err != nil {
		return nil, fmt.Errorf("make client of %s: %w", config.Endpoint, err)
	}
	return &S3{core: *core, bucket: config.Bucket}, nil
}

// Bucket that the store writes to.
func (s *S3) Bucket() string { return s.bucket }

// Stat returns what the store says of one version.
func (s *S3) Stat(ctx context.Context, key, versionID string) (Object, error) {
	info, err := s.core.StatObject(ctx, s.bucket, key, minio.StatObjectOptions{VersionID: versionID, Checksum: true})
	if err != nil {
		return Object{}, fmt.Errorf("stat %s: %w", key, readError(err))
	}
	object := Object{Key: key, VersionID: info.VersionID, Size: info.Size}
	object.Lock.Mode = info.Headers.Get(headerLockMode)
	if until := info.Headers.Get(headerLockUntil); until != "" {
		object.Lock.RetainUntil, err = time.Parse(time.RFC3339, until)
		if err != nil {
			return Object{}, fmt.Errorf("stat %s: parse retain-until: %w", key, err)
		}
		object.Lock.RetainUntil = object.Lock.RetainUntil.UTC()
	}
	return object, nil
}

// Open streams one version; a read fails when the connection ends before the object does.
func (s *S3) Open(ctx context.Context, key, versionID string) (io.ReadCloser, error) {
	body, _, _, err := s.core.GetObject(ctx, s.bucket, key, minio.GetObjectOptions{VersionID: versionID})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, readError(err))
	}
	return body, nil
}

// readError names ErrNotFound where the store says so. A delete marker answers 405 to a read of its version.
func readError(err error) error {
	answer := minio.ToErrorResponse(err)
	if answer.StatusCode == http.StatusNotFound || answer.StatusCode == http.StatusMethodNotAllowed {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

func newTransport(secure bool, caBundle string) (*http.Transport, error) {
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, fmt.Errorf("make transport: %w", err)
	}
	if !secure || caBundle == "" {
		return transport, nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(caBundle)) {
		return nil, errors.New("caBundle has no PEM certificate")
	}
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	return transport, nil
}
