package upload_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/upload"
)

func sealed(t *testing.T, identities ...*age.X25519Identity) upload.Options {
	t.Helper()
	var recipients []string
	for _, identity := range identities {
		recipients = append(recipients, identity.Recipient().String())
	}
	o := options(first)
	var err error
	o.Seal, err = upload.Age(recipients...)
	must(t, err)
	return o
}

func identity(t *testing.T) *age.X25519Identity {
	t.Helper()
	made, err := age.GenerateX25519Identity()
	must(t, err)
	return made
}

func TestEachSegmentIsAnAgeFileThatEachRecipientOpens(t *testing.T) {
	data, memory, one, other := random(455), worm.NewMemory(), identity(t), identity(t)
	result := store(t, memory, sealed(t, one, other), data, frame)
	fetch(t, memory, result.Segments) // checks the digests of what is stored
	for _, identity := range []age.Identity{one, other} {
		var all []byte
		for i, segment := range result.Segments {
			opened, err := age.Decrypt(bytes.NewReader(open(t, memory, segment)), identity)
			must(t, err)
			plain, err := io.ReadAll(opened)
			must(t, err)
			want := v1alpha1.PlainContent{Size: int64(len(plain)), SHA256: evidence.Digest(plain)}
			if diff := cmp.Diff(&want, segment.Plain); diff != "" {
				t.Errorf("segment %d (-want +got):\n%s", i, diff)
			}
			all = append(all, plain...)
		}
		if !bytes.Equal(all, data) {
			t.Error("segments do not add up to the stream")
		}
	}
	if result.SHA256 != evidence.Digest(data) || result.Size != int64(len(data)) || len(result.Segments) != 5 {
		t.Errorf("reported %d bytes with %s in %d segments", result.Size, result.SHA256, len(result.Segments))
	}
}

func TestSealedStreamResumesByItsPlainBytes(t *testing.T) {
	data, one := random(455), identity(t)
	m := &mortal{Memory: worm.NewMemory(), deaths: []death{{afterRecord, 1}, {afterPut, 5}}}
	var result upload.Result
	err := errDead
	for errors.Is(err, errDead) {
		result, err = m.live(t, data, sealed(t, one))
	}
	must(t, err)
	var all []byte
	for _, segment := range result.Segments {
		opened, err := age.Decrypt(bytes.NewReader(open(t, m.Memory, segment)), one)
		must(t, err)
		plain, err := io.ReadAll(opened)
		must(t, err)
		all = append(all, plain...)
	}
	if !bytes.Equal(all, data) || len(result.Abandoned) != 1 || len(m.deaths) != 0 {
		t.Errorf("%d bytes came back, abandoned %v, deaths left %v", len(all), result.Abandoned, m.deaths)
	}
	complete(t, m.Memory, result)
	data[0]++
	if _, err := m.live(t, data, sealed(t, one)); !errors.Is(err, upload.ErrDiverged) {
		t.Errorf("another stream: error %v, want ErrDiverged", err)
	}
}

func TestAgeRefusesWhatIsNoRecipient(t *testing.T) {
	for name, recipients := range map[string][]string{"none": nil, "empty": {""}, "nonsense": {"age1nonsense"}, "a secret": {identity(t).String()}} {
		if _, err := upload.Age(recipients...); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestSealedWriterReturnsTheErrorOfTheStore(t *testing.T) {
	want := errors.New("connection reset")
	w := upload.NewWriter(t.Context(), claimable{broken{err: want}}, sealed(t, identity(t)))
	_, err := io.Copy(w, io.LimitReader(zeros{}, 1<<20))
	if err == nil {
		_, err = w.Finish()
	}
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
	w.Abort(err)
}
