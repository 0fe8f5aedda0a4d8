package storetest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"ugallu.io/forensics/internal/testneeds"
)

const (
	// Bucket that each server has, with Object Lock.
	Bucket = "evidence"
	// KMSKey that MinIO encrypts with.
	KMSKey = "contract-key"

	startTimeout = 30 * time.Second
	rootUser     = "contract-root"
	rootPassword = "contract-root-password"                                      // #nosec G101 -- of a server on loopback
	kmsSecret    = KMSKey + ":" + "OSMM+vkKUTCvQs9YL/CVMIMt43HFhkUpqJxTmGl6rYw=" // #nosec G101 -- of a server on loopback
)

// Server is a store that a test may kill and start again on the same address and folder.
type Server struct {
	// Endpoint with scheme.
	Endpoint string
	// AccessKey and SecretKey of the administrator.
	AccessKey, SecretKey string
	// Admin may do everything.
	Admin *minio.Client

	command func() *exec.Cmd
	running *exec.Cmd
	putOnly func(t testing.TB, policy string) Credential
	// ready says that the server does all that tests ask of it. It is asked once the administrator is answered.
	ready func() error
	log   lockedBuffer
}

// Credential of one account.
type Credential struct{ AccessKey, SecretKey, SessionToken string }

// Servers are the ways to start each store that the contract is tested on.
func Servers() map[string]func(t testing.TB) *Server {
	return map[string]func(t testing.TB) *Server{
		"MinIO":     func(t testing.TB) *Server { return MinIO(t, t.TempDir()) },
		"versitygw": func(t testing.TB) *Server { return Versity(t, t.TempDir()) },
	}
}

// MinIO runs the binary named by FORENSICS_MINIO on a folder. Without it the test is skipped, or fails if REQUIRE_ALL=1.
func MinIO(t testing.TB, folder string) *Server {
	t.Helper()
	path, address, console := testneeds.Binary(t, "FORENSICS_MINIO"), testneeds.FreeAddress(t), testneeds.FreeAddress(t)
	s := newServer(t, address, func() *exec.Cmd {
		command := exec.Command(path, "server", "--quiet", "--address", address, "--console-address", console, folder)
		command.Env = append(os.Environ(), "MINIO_ROOT_USER="+rootUser, "MINIO_ROOT_PASSWORD="+rootPassword,
			"MINIO_BROWSER=off", "MINIO_UPDATE=off", "MINIO_KMS_SECRET_KEY="+kmsSecret)
		return command
	})
	s.putOnly = s.assumeRole
	// It reads its accounts in the background, until when it serves the administrator but gives out no roles.
	s.ready = func() error {
		_, err := s.role(putOnly)
		return err
	}
	s.begin(t)
	return s
}

// Versity runs the binary named by FORENSICS_VERSITYGW on a folder of a file system with extended attributes.
func Versity(t testing.TB, folder string) *Server {
	t.Helper()
	path, address := testneeds.Binary(t, "FORENSICS_VERSITYGW"), testneeds.FreeAddress(t)
	var folders []string
	for _, name := range []string{"objects", "versions", "accounts"} {
		folders = append(folders, filepath.Join(folder, name))
		if err := os.MkdirAll(filepath.Join(folder, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s := newServer(t, address, func() *exec.Cmd {
		command := exec.Command(path, "--port", address, "--iam-dir", folders[2], "--quiet",
			"posix", "--versioning-dir", folders[1], folders[0])
		command.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+rootUser, "ROOT_SECRET_KEY="+rootPassword)
		return command
	})
	s.putOnly = func(t testing.TB, actions string) Credential { return s.createUser(t, path, actions) }
	s.ready = func() error { return nil }
	s.begin(t)
	return s
}

func newServer(t testing.TB, address string, command func() *exec.Cmd) *Server {
	t.Helper()
	s := &Server{
		Endpoint: "http://" + address, AccessKey: rootUser, SecretKey: rootPassword, command: command,
	}
	t.Cleanup(func() {
		s.Kill(t)
		if t.Failed() {
			t.Logf("store:\n%s", s.log.String())
		}
	})
	var err error
	s.Admin, err = minio.New(address, &minio.Options{Creds: credentials.NewStaticV4(rootUser, rootPassword, ""), Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *Server) begin(t testing.TB) {
	t.Helper()
	s.Start(t)
	if err := s.Admin.MakeBucket(t.Context(), Bucket, minio.MakeBucketOptions{ObjectLocking: true}); err != nil {
		t.Fatalf("make bucket: %v", err)
	}
}

// Start runs the server, again after Kill, and waits until it is ready.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.running = s.command()
	s.running.Stdout, s.running.Stderr = &s.log, &s.log
	if err := s.running.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(50 * time.Millisecond) {
		_, err := s.Admin.ListBuckets(t.Context())
		if err == nil {
			err = s.ready()
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("store is not ready: %v", err)
		}
	}
}

// Kill ends the server with SIGKILL, if it runs.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if s.running == nil {
		return
	}
	if err := s.running.Process.Kill(); err != nil {
		t.Errorf("kill store: %v", err)
	}
	_ = s.running.Wait() // reports the kill
	s.running = nil
}

// lockedBuffer takes what two processes of one server write.
type lockedBuffer struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.String()
}
