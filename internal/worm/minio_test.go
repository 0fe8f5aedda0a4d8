package worm_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"ugallu.io/forensics/internal/worm"
)

const (
	rootUser     = "contract-root"
	rootPassword = "contract-root-password" // #nosec G101 -- of a server that this test starts on loopback
	bucket       = "evidence"
)

type server struct {
	endpoint string
	admin    *minio.Client
}

// startMinIO runs the binary named by FORENSICS_MINIO on loopback, with one bucket that has Object Lock.
func startMinIO(t *testing.T) *server {
	t.Helper()
	binary := os.Getenv("FORENSICS_MINIO")
	if binary == "" {
		skip(t, "FORENSICS_MINIO names no server")
	}
	address := freeAddress(t)
	var log bytes.Buffer
	command := exec.Command(binary, "server", "--quiet", "--address", address, "--console-address", freeAddress(t), t.TempDir()) // #nosec G204 -- the test's own server
	command.Env = append(os.Environ(), "MINIO_ROOT_USER="+rootUser, "MINIO_ROOT_PASSWORD="+rootPassword, "MINIO_BROWSER=off", "MINIO_UPDATE=off")
	command.Stdout, command.Stderr = &log, &log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := command.Process.Kill(); err != nil {
			t.Errorf("stop store: %v", err)
		}
		_ = command.Wait() // reports the kill
		if t.Failed() {
			t.Logf("store:\n%s", log.String())
		}
	})
	admin, err := minio.New(address, &minio.Options{Creds: credentials.NewStaticV4(rootUser, rootPassword, ""), Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	makeBucket(t, admin)
	return &server{endpoint: "http://" + address, admin: admin}
}

func makeBucket(t *testing.T, admin *minio.Client) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := admin.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{ObjectLocking: true})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("make bucket: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *server) store(t *testing.T) *worm.S3 {
	t.Helper()
	store, err := worm.NewS3(worm.Config{Endpoint: s.endpoint, Bucket: bucket, AccessKey: rootUser, SecretKey: rootPassword})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestS3LeavesNoUnfinishedUpload(t *testing.T) {
	server := startMinIO(t)
	store := server.store(t)
	refusesToReplace(t, store)
	keepsNothingOfTornBody(t, store)
	for upload := range server.admin.ListIncompleteUploads(t.Context(), bucket, "", true) {
		if upload.Err != nil {
			t.Fatal(upload.Err)
		}
		t.Errorf("unfinished upload of %s", upload.Key)
	}
}

func TestS3RefusesToDeleteALockedVersion(t *testing.T) {
	server := startMinIO(t)
	put, err := server.store(t).Put(t.Context(), "locked", bytes.NewReader([]byte("x")), lockFor(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	err = server.admin.RemoveObject(t.Context(), bucket, "locked", minio.RemoveObjectOptions{
		VersionID: put.VersionID, GovernanceBypass: true,
	})
	if err == nil {
		t.Error("deleted it")
	}
	shorter := time.Now().Add(time.Minute)
	mode := minio.Governance
	err = server.admin.PutObjectRetention(t.Context(), bucket, "locked", minio.PutObjectRetentionOptions{
		VersionID: put.VersionID, Mode: &mode, RetainUntilDate: &shorter, GovernanceBypass: true,
	})
	if err == nil {
		t.Error("shortened it")
	}
}

func TestS3NamesABucketWithoutObjectLock(t *testing.T) {
	server := startMinIO(t)
	const plain = "plain"
	if err := server.admin.MakeBucket(t.Context(), plain, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	store, err := worm.NewS3(worm.Config{Endpoint: server.endpoint, Bucket: plain, AccessKey: rootUser, SecretKey: rootPassword})
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 17 * mebibyte} {
		if _, err := store.Put(t.Context(), fmt.Sprint(size), bytes.NewReader(randomBytes(size)), lockFor(time.Hour)); err == nil {
			t.Errorf("stored %d bytes without a lock", size)
		}
	}
}

const putOnly = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
"Action":["s3:PutObject","s3:PutObjectRetention","s3:AbortMultipartUpload"],
"Resource":["arn:aws:s3:::evidence/forensics/*/artifacts/*"]}]}`

func TestS3PutNeedsNoReadPermission(t *testing.T) {
	server := startMinIO(t)
	role, err := credentials.NewSTSAssumeRole(server.endpoint, credentials.STSAssumeRoleOptions{
		AccessKey: rootUser, SecretKey: rootPassword, Location: "us-east-1", Policy: putOnly,
	})
	if err != nil {
		t.Fatal(err)
	}
	credential, err := role.GetWithContext(&credentials.CredContext{Client: http.DefaultClient})
	if err != nil {
		t.Fatal(err)
	}
	store, err := worm.NewS3(worm.Config{
		Endpoint: server.endpoint, Bucket: bucket,
		AccessKey: credential.AccessKeyID, SecretKey: credential.SecretAccessKey, SessionToken: credential.SessionToken,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 17 * mebibyte} {
		key := fmt.Sprintf("forensics/0123456789abcdef/artifacts/a/%d", size)
		if _, err := store.Put(t.Context(), key, bytes.NewReader(randomBytes(size)), lockFor(time.Hour)); err != nil {
			t.Errorf("put %d bytes: %v", size, err)
		}
		if _, err := store.Put(t.Context(), key, bytes.NewReader(randomBytes(size)), lockFor(time.Hour)); !errors.Is(err, worm.ErrExists) {
			t.Errorf("second put of %d bytes: got %v, want ErrExists", size, err)
		}
	}
	if _, err := store.Put(t.Context(), "forensics/x/manifest", bytes.NewReader(nil), lockFor(time.Hour)); err == nil {
		t.Error("the policy of this test does not hold: stored outside the prefix")
	}
	if _, err := store.Stat(t.Context(), "forensics/0123456789abcdef/artifacts/a/1", ""); err == nil {
		t.Error("the policy of this test does not hold: read with a put-only credential")
	}
}

func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("REQUIRE_ALL") == "1" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}
