package servers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

const testPassword = "policies-root-password" // #nosec G101 -- of a server that this test starts on loopback

// can is what an account can do with one key of each kind.
type can struct {
	Put, Get []string
	List     bool
}

func TestUsersCanDoWhatTheirWorkNeedsAndNoMore(t *testing.T) {
	address := start(t, "FORENSICS_MINIO", []string{"MINIO_ROOT_USER=root", "MINIO_ROOT_PASSWORD=" + testPassword, "MINIO_BROWSER=off", "MINIO_UPDATE=off"},
		func(address, folder string) []string {
			return []string{"server", "--quiet", "--address", address, folder}
		})
	admin := connectStore(t, address, credentials.NewStaticV4("root", testPassword, ""))
	eventually(t, func() error {
		return store{root: map[string][]byte{minioUser: []byte("root"), minioPassword: []byte(testPassword)}}.makeBucket(t.Context(), address)
	})
	keys := map[string]string{
		"artifact": "forensics/0123456789abcdef/artifacts/web/rootfs.tar.zst/0", "manifest": "forensics/0123456789abcdef/manifest-00.json",
		"bundle": "forensics/0123456789abcdef/bundles/b.sigstore.json", "attestation": "attestations/u.sigstore.json", "foreign": "else",
		"custody": "forensics/0123456789abcdef/custody-1-00.json", "trust": "forensics/0123456789abcdef/trust/00/trusted_root.json",
	}
	versions := map[string]string{}
	for kind, key := range keys {
		versions[kind] = putLocked(t, admin, key).VersionID
	}
	everything := []string{"artifact", "attestation", "bundle", "custody", "foreign", "manifest", "trust"}
	want := map[string]can{
		"ugallu-forensics": {
			Put: []string{"manifest"}, Get: []string{"artifact", "attestation", "bundle", "custody", "manifest", "trust"}, List: true,
		},
		"ugallu-attestor": {
			Put: []string{"attestation", "bundle", "custody", "trust"}, Get: []string{"attestation", "bundle", "custody", "manifest", "trust"}, List: true,
		},
		"ugallu-forensics-snapshot":  {Get: everything, List: true},
		"ugallu-forensics-nodeagent": {Put: []string{"artifact"}},
		"ugallu-analyst":             {Get: everything, List: true},
	}
	got := map[string]can{}
	for _, user := range users() {
		as := connectStore(t, address, assume(t, address, user))
		var found can
		for _, kind := range everything {
			if _, err := tryPut(t, as, keys[kind]); err == nil {
				found.Put = append(found.Put, kind)
			}
			if _, err := as.StatObject(t.Context(), bucket, keys[kind], minio.StatObjectOptions{VersionID: versions[kind]}); err == nil {
				found.Get = append(found.Get, kind)
			}
			for _, version := range []string{"", versions[kind]} {
				if err := as.RemoveObject(t.Context(), bucket, keys[kind], minio.RemoveObjectOptions{VersionID: version}); err == nil {
					t.Errorf("%s deleted %s version %q", user.name, kind, version)
				}
			}
		}
		found.List = lists(t, as)
		got[user.name] = found
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// assume returns credentials that have the user's policy.
func assume(t *testing.T, address string, user user) *credentials.Credentials {
	t.Helper()
	policy, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": user.statements})
	if err != nil {
		t.Fatal(err)
	}
	role, err := credentials.NewSTSAssumeRole("http://"+address, credentials.STSAssumeRoleOptions{
		AccessKey: "root", SecretKey: testPassword, Location: "us-east-1", Policy: string(policy),
	})
	if err != nil {
		t.Fatal(err)
	}
	value, err := role.GetWithContext(&credentials.CredContext{Client: http.DefaultClient})
	if err != nil {
		t.Fatal(err)
	}
	return credentials.NewStaticV4(value.AccessKeyID, value.SecretAccessKey, value.SessionToken)
}

func connectStore(t *testing.T, address string, who *credentials.Credentials) *minio.Client {
	t.Helper()
	connected, err := minio.New(address, &minio.Options{Creds: who, Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	return connected
}

func tryPut(t *testing.T, as *minio.Client, key string) (minio.UploadInfo, error) {
	t.Helper()
	return as.PutObject(t.Context(), bucket, key, bytes.NewReader([]byte("evidence")), 8, minio.PutObjectOptions{
		Mode: minio.Compliance, RetainUntilDate: time.Now().Add(time.Hour),
	})
}

func putLocked(t *testing.T, admin *minio.Client, key string) minio.UploadInfo {
	t.Helper()
	info, err := tryPut(t, admin, key)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func lists(t *testing.T, as *minio.Client) bool {
	t.Helper()
	for object := range as.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true, MaxKeys: 1}) {
		if object.Err != nil {
			if minio.ToErrorResponse(object.Err).Code != "AccessDenied" {
				t.Error(fmt.Errorf("list: %w", object.Err))
			}
			return false
		}
	}
	return true
}
