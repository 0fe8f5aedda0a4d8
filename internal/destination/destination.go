package destination

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

// Files of a mounted credential.
const (
	fileAccessKey = "access-key"
	fileSecretKey = "secret-key"
)

// ErrPlainHTTP is returned by Open for an http endpoint without insecureAllowHTTP.
var ErrPlainHTTP = errors.New("endpoint is http and insecureAllowHTTP is not set")

// Open returns the bucket, or the WORMConfig's own when bucket is empty, with the credential in credentialsDir. Both
// are read anew at every call, so that a rotated credential counts at once. It does not connect. adjust sets what the
// WORMConfig does not say: patience, bandwidth, the store's key.
func Open(
	ctx context.Context, reader client.Reader, credentialsDir, bucket string, adjust ...func(*worm.Config),
) (*worm.S3, error) {
	settings, err := read(ctx, reader, credentialsDir, bucket)
	if err != nil {
		return nil, err
	}
	for _, change := range adjust {
		change(&settings)
	}
	return worm.NewS3(settings)
}

func read(ctx context.Context, reader client.Reader, credentialsDir, bucket string) (worm.Config, error) {
	config, err := Config(ctx, reader)
	if err != nil {
		return worm.Config{}, err
	}
	return storeConfig(config.Spec, credentialsDir, bucket)
}

// Config reads the cluster's one WORMConfig.
func Config(ctx context.Context, reader client.Reader) (*v1alpha1.WORMConfig, error) {
	var config v1alpha1.WORMConfig
	name := client.ObjectKey{Namespace: v1alpha1.NamespaceSystem, Name: v1alpha1.SingletonName}
	if err := reader.Get(ctx, name, &config); err != nil {
		return nil, fmt.Errorf("read WORMConfig %s: %w", name, err)
	}
	return &config, nil
}

func storeConfig(spec v1alpha1.WORMConfigSpec, credentialsDir, bucket string) (worm.Config, error) {
	if strings.HasPrefix(spec.Endpoint, "http://") && !spec.InsecureAllowHTTP {
		return worm.Config{}, fmt.Errorf("open store %s: %w", spec.Endpoint, ErrPlainHTTP)
	}
	if bucket == "" {
		bucket = spec.Bucket
	}
	accessKey, err := readCredential(credentialsDir, fileAccessKey)
	if err != nil {
		return worm.Config{}, err
	}
	secretKey, err := readCredential(credentialsDir, fileSecretKey)
	if err != nil {
		return worm.Config{}, err
	}
	return worm.Config{
		Endpoint:  spec.Endpoint,
		Region:    spec.Region,
		Bucket:    bucket,
		CABundle:  spec.CABundle,
		AccessKey: accessKey,
		SecretKey: secretKey,
	}, nil
}

func readCredential(dir, name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, name)) // #nosec G304 -- the folder is a flag of the operator's
	if err != nil {
		return "", fmt.Errorf("read store credential: %w", err)
	}
	value := strings.TrimSpace(string(data))
	if value == "" {
		return "", fmt.Errorf("store credential %s is empty", filepath.Join(dir, name))
	}
	return value, nil
}
