package storetest

import (
	"fmt"
	"net/http"
	"os/exec"
	"testing"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// putOnly is what a node's agent may do: put, lock and give up, below the artifacts of incidents.
const putOnly = `"Action":["s3:PutObject","s3:PutObjectRetention","s3:AbortMultipartUpload"],` +
	`"Resource":["arn:aws:s3:::` + Bucket + `/forensics/*/artifacts/*"]`

// PutOnly makes a credential that may put below forensics/*/artifacts/ and nothing else.
func (s *Server) PutOnly(t testing.TB) Credential {
	t.Helper()
	return s.putOnly(t, putOnly)
}

func (s *Server) assumeRole(t testing.TB, rule string) Credential {
	t.Helper()
	made, err := s.role(rule)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func (s *Server) role(rule string) (Credential, error) {
	role, err := credentials.NewSTSAssumeRole(s.Endpoint, credentials.STSAssumeRoleOptions{
		AccessKey: s.AccessKey, SecretKey: s.SecretKey, Location: "us-east-1",
		Policy: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",` + rule + `}]}`,
	})
	if err != nil {
		return Credential{}, fmt.Errorf("ask for a role: %w", err)
	}
	value, err := role.GetWithContext(&credentials.CredContext{Client: http.DefaultClient})
	if err != nil {
		return Credential{}, fmt.Errorf("assume role: %w", err)
	}
	return Credential{value.AccessKeyID, value.SecretAccessKey, value.SessionToken}, nil
}

func (s *Server) createUser(t testing.TB, path, rule string) Credential {
	t.Helper()
	made := Credential{AccessKey: "contract-node", SecretKey: "contract-node-password"} // #nosec G101 -- on loopback
	command := exec.Command(path, "admin", "--access", s.AccessKey, "--secret", s.SecretKey, "--endpoint-url", s.Endpoint,
		"create-user", "--access", made.AccessKey, "--secret", made.SecretKey, "--role", "user")
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("create user: %v\n%s", err, output)
	}
	policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":["` + made.AccessKey + `"],` + rule + `}]}`
	if err := s.Admin.SetBucketPolicy(t.Context(), Bucket, policy); err != nil {
		t.Fatalf("set bucket policy: %v", err)
	}
	return made
}
