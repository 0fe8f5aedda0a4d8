package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"sync/atomic"

	"ugallu.io/forensics/internal/verify"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/kubectl-forensics/internal/options"
)

// openBucket does not connect.
func openBucket(o options.Options) (place, error) {
	name, target, err := parseURL(o.Target)
	if err != nil {
		return place{}, err
	}
	var roots []byte
	if o.Store.CAFile != "" {
		if roots, err = os.ReadFile(o.Store.CAFile); err != nil {
			return place{}, fmt.Errorf("read CA file: %w", err)
		}
	}
	store, err := worm.NewS3(worm.Config{
		Endpoint: o.Store.Endpoint, Region: o.Store.Region, Bucket: name, CABundle: string(roots),
		Shared: &worm.Shared{File: o.Store.CredentialsFile, Profile: o.Store.Profile},
	})
	if err != nil {
		return place{}, err
	}
	source := &counted{S3: store}
	return place{source: source, target: target, close: func() error { return nil }, bytes: source.bytes.Load}, nil
}

// parseURL splits s3://bucket/key and, if there is one, ?versionId=….
func parseURL(text string) (bucket string, target verify.Target, err error) {
	parsed, err := url.Parse(text)
	if err != nil {
		return "", verify.Target{}, fmt.Errorf("parse URL: %w", err)
	}
	key := strings.TrimPrefix(parsed.Path, "/")
	if parsed.Scheme != "s3" || parsed.Host == "" || key == "" {
		return "", verify.Target{}, fmt.Errorf("%q is not s3://bucket/key", text)
	}
	return parsed.Host, verify.Target{Key: key, VersionID: parsed.Query().Get("versionId")}, nil
}

// counted is a bucket that counts what is read from it.
type counted struct {
	*worm.S3
	bytes atomic.Int64
}

// Open counts.
func (c *counted) Open(ctx context.Context, key, versionID string) (io.ReadCloser, error) {
	return c.count(c.S3.Open(ctx, key, versionID))
}

// OpenRange counts.
func (c *counted) OpenRange(ctx context.Context, key, versionID string, offset, length int64) (io.ReadCloser, error) {
	return c.count(c.S3.OpenRange(ctx, key, versionID, offset, length))
}

func (c *counted) count(body io.ReadCloser, err error) (io.ReadCloser, error) {
	if err != nil {
		return nil, err
	}
	return &counting{ReadCloser: body, bytes: &c.bytes}, nil
}

type counting struct {
	io.ReadCloser
	bytes *atomic.Int64
}

// Read counts.
func (c *counting) Read(to []byte) (int, error) {
	n, err := c.ReadCloser.Read(to)
	c.bytes.Add(int64(n))
	return n, err
}
