package destination_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/destination"
	"ugallu.io/forensics/internal/worm"
)

func locked(until time.Time) v1alpha1.Destination {
	return v1alpha1.Destination{Bucket: "evidence", LockMode: v1alpha1.LockCompliance, RetainUntil: metav1.NewTime(until)}
}

func TestKeepStoresOnceAndReturnsWhatIsThere(t *testing.T) {
	store, to := worm.NewMemory(), locked(time.Now().Add(time.Hour).UTC().Truncate(time.Second))
	first, err := destination.Keep(t.Context(), store, to, "key", []byte("content"))
	must(t, err)
	again, err := destination.Keep(t.Context(), store, to, "key", []byte("content"))
	must(t, err)
	want := v1alpha1.StoredObject{
		Key: "key", VersionID: "version-1", SHA256: evidence.Digest([]byte("content")), Size: 7, RetainUntil: to.RetainUntil,
	}
	if diff := cmp.Diff([]v1alpha1.StoredObject{want, want}, []v1alpha1.StoredObject{first, again}); diff != "" {
		t.Error(diff)
	}
}

func TestKeepBelievesNoStranger(t *testing.T) {
	store, until := worm.NewMemory(), time.Now().Add(time.Hour)
	for key, lock := range map[string]worm.Lock{
		"content": {Mode: "COMPLIANCE", RetainUntil: until}, "mode": {Mode: "GOVERNANCE", RetainUntil: until},
		"date": {Mode: "COMPLIANCE", RetainUntil: until.Add(-time.Minute)},
	} {
		body := "ours"
		if key == "content" {
			body = "theirs"
		}
		_, err := store.Put(t.Context(), key, strings.NewReader(body), lock)
		must(t, err)
		if _, err := destination.Keep(t.Context(), store, locked(until), key, []byte("ours")); !errors.Is(err, destination.ErrNotAsStored) {
			t.Errorf("%s: error %v", key, err)
		}
	}
}

// broken is a store that fails.
type broken struct {
	*worm.Memory
	err error
}

func (b broken) Put(context.Context, string, io.Reader, worm.Lock) (worm.Object, error) {
	return worm.Object{}, b.err
}

func TestKeepPassesTheStoresErrorsOn(t *testing.T) {
	_, err := destination.Keep(t.Context(), broken{worm.NewMemory(), worm.ErrFull}, locked(time.Now().Add(time.Hour)), "key", nil)
	if !errors.Is(err, worm.ErrFull) {
		t.Errorf("error %v", err)
	}
}

func TestTroubleSaysWhatToDo(t *testing.T) {
	absent := apierrors.NewNotFound(schema.GroupResource{Resource: "wormconfigs"}, "default")
	tests := map[string]struct {
		err          error
		reason, says string
	}{
		"full":         {worm.ErrFull, v1alpha1.ReasonStoreFull, "make room"},
		"denied":       {worm.ErrDenied, v1alpha1.ReasonStoreDenied, "credential"},
		"no bucket":    {worm.ErrNoBucket, v1alpha1.ReasonStoreNoBucket, "spec.bucket"},
		"not locked":   {worm.ErrNotLocked, v1alpha1.ReasonStoreNotLocked, "Object Lock"},
		"a stranger":   {destination.ErrNotAsStored, v1alpha1.ReasonDigestMismatch, "who else"},
		"unconfigured": {absent, v1alpha1.ReasonStoreUnconfigured, "create WORMConfig ugallu-system/default"},
		"away":         {worm.ErrUnavailable, v1alpha1.ReasonStoreUnreachable, "unavailable"},
		"unknown":      {errors.New("odd"), v1alpha1.ReasonStoreUnreachable, "odd"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			reason, message := destination.Trouble(fmt.Errorf("store manifest: %w", tt.err))
			if reason != tt.reason || !strings.Contains(message, tt.says) || !strings.HasSuffix(message, "store manifest: "+tt.err.Error()) {
				t.Errorf("%s: %s", reason, message)
			}
			if worm.NeedsOperator(tt.err) && reason == v1alpha1.ReasonStoreUnreachable {
				t.Error("an operator is not told what to do")
			}
		})
	}
}

func TestWithKeyIsForTheStoresOwnEncryption(t *testing.T) {
	for encryption, want := range map[v1alpha1.Encryption]string{
		v1alpha1.EncryptionSSEKMS: "key-1", v1alpha1.EncryptionNone: "", v1alpha1.EncryptionAge: "",
	} {
		var config worm.Config
		destination.WithKey(v1alpha1.Destination{Encryption: encryption, KMSKeyID: "key-1"})(&config)
		if config.KMSKeyID != want {
			t.Errorf("%s: key %q", encryption, config.KMSKeyID)
		}
	}
}

func TestEachRecipientOpensWhatIsEncrypted(t *testing.T) {
	first, err := age.GenerateX25519Identity()
	must(t, err)
	second, err := age.GenerateX25519Identity()
	must(t, err)
	sealed, err := destination.Encrypt([]string{first.Recipient().String(), second.Recipient().String()}, []byte("content"))
	must(t, err)
	for _, identity := range []age.Identity{first, second} {
		reader, err := age.Decrypt(bytes.NewReader(sealed), identity)
		must(t, err)
		plain, err := io.ReadAll(reader)
		must(t, err)
		if string(plain) != "content" {
			t.Errorf("decrypted %q", plain)
		}
	}
	if bytes.Contains(sealed, []byte("content")) {
		t.Error("not encrypted")
	}
	for name, recipients := range map[string][]string{"none": nil, "nonsense": {"age1nonsense"}} {
		if _, err := destination.Encrypt(recipients, []byte("content")); err == nil {
			t.Errorf("%s: encrypted", name)
		}
		if destination.CheckRecipients(recipients) == nil {
			t.Errorf("%s: passed", name)
		}
	}
}
