package worm

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/encrypt"
	"golang.org/x/time/rate"
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
	// Shared, where it is set, says where the credential is found in place of these three.
	Shared *Shared
	// Patience is how long a request is repeated while the store is unavailable. A reconciler repeats the whole anyway
	// and has none: a dead store is reported within seconds. Who streams what cannot be read twice has some.
	Patience time.Duration
	// Bandwidth in bytes that all stores with this limiter send together; nil is no limit.
	Bandwidth *rate.Limiter
	// KMSKeyID of the key that the store encrypts with (SSE-KMS); empty is no encryption.
	KMSKeyID string
}

// Shared is a credential that an analyst's tools share: it is taken from the environment (AWS_*, then MINIO_*), or else from
// a file in the format of AWS.
type Shared struct {
	// File is empty for the usual one, and Profile for the usual one in it.
	File, Profile string
}

// S3 is a bucket with Object Lock. Put needs s3:PutObject, s3:PutObjectRetention and s3:AbortMultipartUpload only.
type S3 struct {
	core      minio.Core
	bucket    string
	patience  time.Duration
	bandwidth *rate.Limiter
	// encryption by the store; nil is none.
	encryption encrypt.ServerSide
	// noCRC64 is set once the store has refused CRC64NVME.
	noCRC64 atomic.Bool
	// ahead is held by the one upload that reads a part ahead.
	ahead   sync.Mutex
	buffers buffers
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
	if config.Bucket == "" || (config.Shared == nil && (config.AccessKey == "" || config.SecretKey == "")) {
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
		Creds:      config.credentials(),
		Secure:     secure,
		Transport:  transport,
		Region:     region,
		MaxRetries: 1, // try repeats
	})
	if err != nil {
		return nil, fmt.Errorf("make client of %s: %w", config.Endpoint, err)
	}
	store := &S3{core: *core, bucket: config.Bucket, patience: config.Patience, bandwidth: config.Bandwidth}
	if config.KMSKeyID != "" {
		if store.encryption, err = encrypt.NewSSEKMS(config.KMSKeyID, nil); err != nil {
			return nil, fmt.Errorf("encrypt with the store's key %s: %w", config.KMSKeyID, err)
		}
	}
	return store, nil
}

func (c *Config) credentials() *credentials.Credentials {
	if c.Shared == nil {
		return credentials.NewStaticV4(c.AccessKey, c.SecretKey, c.SessionToken)
	}
	return credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{}, &credentials.EnvMinio{},
		&credentials.FileAWSCredentials{Filename: c.Shared.File, Profile: c.Shared.Profile},
	})
}

// Bucket that the store writes to.
func (s *S3) Bucket() string { return s.bucket }

func newTransport(secure bool, caBundle string) (*http.Transport, error) {
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, fmt.Errorf("make transport: %w", err)
	}
	// Completing an upload may take longer than the client's own minute; each request has a limit of its own.
	transport.ResponseHeaderTimeout = silenceOfComplete
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
