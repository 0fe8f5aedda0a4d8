package verify_test

import (
	"context"
	"io"
	"testing"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/verify"
	"ugallu.io/forensics/internal/verify/verifytest"
)

// endless gives zeros without an end after the content of one key.
type endless struct {
	*verifytest.Incident
	key  string
	read int64
}

func (e *endless) Open(ctx context.Context, key, version string) (io.ReadCloser, error) {
	body, err := e.Incident.Open(ctx, key, version)
	if err != nil || key != e.key {
		return body, err
	}
	return &tail{e, body}, nil
}

type tail struct {
	of *endless
	io.ReadCloser
}

func (t *tail) Read(to []byte) (int, error) {
	n, err := t.ReadCloser.Read(to)
	if err != nil {
		n = len(to)
	}
	t.of.read += int64(n)
	return n, nil
}

func TestWhatIsLongerThanOnRecordIsNotReadWhole(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	trust := authority.Trust()
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	rows := map[string]struct {
		key, link, check string
		times            int64
	}{
		"a segment":       {incident.Key("rootfs.tar.zst/1"), "object " + incident.Key("rootfs.tar.zst/1"), verify.CheckDigest, 1},
		"an index":        {incident.Key("rootfs.index"), "object " + incident.Key("rootfs.index"), verify.CheckDigest, 1},
		"a step's bundle": {keyOfBundle(v1alpha1.StepSnapshot)(incident), "statement " + v1alpha1.ResponseName(incident.Name, v1alpha1.StepSnapshot, 1), verify.CheckDigest, 1},
		"the manifest":    {incident.ManifestKey, verify.LinkManifest, verify.CheckDigest, 1},
		"custody-1":       {incident.Captured, "custody-1", verify.CheckDigest, 1},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			source := &endless{Incident: incident, key: row.key}
			demand(t, check(t, source, trust, incident.Released), row.link, row.check)
			if most := incident.Newest(row.key).Object.Size + 1; source.read != most {
				t.Errorf("read %d bytes, want %d", source.read, most)
			}
		})
	}
	t.Run("the bundle over custody-2", func(t *testing.T) {
		source := &endless{Incident: incident, key: evidence.CustodyBundleKey(incident.Released)}
		demand(t, check(t, source, trust, incident.Released), "statement over custody-2", verify.CheckDigest)
		if source.read != 1<<20+1 {
			t.Errorf("read %d bytes", source.read)
		}
	})
	t.Run("custody-2", func(t *testing.T) {
		source := &endless{Incident: incident, key: incident.Released}
		demand(t, check(t, source, trust, incident.Released), "custody-2", verify.CheckForm)
		if source.read != 64<<20+1 {
			t.Errorf("read %d bytes", source.read)
		}
	})
}
