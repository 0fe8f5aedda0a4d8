package attestor

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/verify/verifytest"
)

func reader(t *testing.T, objects ...client.Object) client.Reader {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
}

func TestTheBundleOverARecordLiesBesideIt(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	incident := &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Name: "inc", UID: "uid-inc"}}
	incident.Spec.Snapshot.Destination = v1alpha1.Destination{
		Bucket: "evidence", Prefix: "forensics/inc", LockMode: v1alpha1.LockCompliance, RetainUntil: metav1.NewTime(now.AddDate(1, 0, 0)),
	}
	bundle := &v1alpha1.AttestationBundle{}
	bundle.Spec = v1alpha1.AttestationBundleSpec{
		AttestedFor: v1alpha1.AttestedFor{Kind: v1alpha1.AttestedIncident, Ref: v1alpha1.Ref{Name: "inc", UID: "uid-inc"}}, IncidentUID: "uid-inc",
	}
	bundle.Status.Record = &v1alpha1.StoredObject{Key: "forensics/inc/custody-1-abc.json"}
	got, err := placeOf(t.Context(), reader(t, incident), bundle, now)
	if err != nil || got.key != "forensics/inc/custody-1-abc.sigstore.json" || got.bucket != "evidence" {
		t.Errorf("placed %+v, %v", got, err)
	}
	gone, err := placeOf(t.Context(), reader(t), bundle, now)
	if failed, ok := errors.AsType[*stageError](err); !ok || failed.reason != v1alpha1.ReasonSubjectGone || failed.final {
		t.Errorf("the incident is gone, and the bundle is placed %+v, %v", gone, err)
	}
	bundle.Status.Destination = bundleDestination(incident)
	if kept, err := placeOf(t.Context(), reader(t), bundle, now); err != nil || kept.key != got.key ||
		kept.bucket != got.bucket || kept.lock.Mode != got.lock.Mode || !kept.lock.RetainUntil.Equal(got.lock.RetainUntil) {
		t.Errorf("the incident is gone, and the bundle is placed %+v, %v, want %+v", kept, err, got)
	}
}

func TestACountersignatureWaitsUntilItsFirstIsStored(t *testing.T) {
	const mode = v1alpha1.SigningFulcioKeyless
	first := &v1alpha1.AttestationBundle{ObjectMeta: metav1.ObjectMeta{Name: "first"}}
	first.Spec = v1alpha1.AttestationBundleSpec{
		AttestedFor: v1alpha1.AttestedFor{Kind: v1alpha1.AttestedIncident, Ref: v1alpha1.Ref{Name: "inc", UID: "uid-inc"}}, IncidentUID: "uid-inc",
	}
	first.Status.Destination = &v1alpha1.BundleDestination{Bucket: "evidence", Prefix: "forensics/inc", LockMode: v1alpha1.LockCompliance}
	second := &v1alpha1.AttestationBundle{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.CountersignatureName("first", mode)}, Spec: first.Spec}
	second.Spec.Countersigns = &v1alpha1.Countersigned{Name: "first", Mode: mode}
	got, err := placeOf(t.Context(), reader(t, first), second, time.Now())
	if _, ok := errors.AsType[*waiting](err); !ok {
		t.Errorf("the record is not stored, and the countersignature of its bundle is placed %+v, %v", got, err)
	}
	first.Status.Record = &v1alpha1.StoredObject{Key: "forensics/inc/custody-1-abc.json"}
	first.Status.Object = &v1alpha1.StoredObject{Key: "forensics/inc/custody-1-abc.sigstore.json"}
	got, err = placeOf(t.Context(), reader(t, first), second, time.Now())
	if err != nil || got.key != "forensics/inc/custody-1-abc.fulcio-keyless.sigstore.json" || got.bucket != "evidence" {
		t.Errorf("placed %+v, %v", got, err)
	}
}

func TestTrustMaterialIsWhatTrustIsMadeOf(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	entries := map[string]string{
		"trusted_root.json": string(authority.TrustedRoot()), "attestor-v1.pub": string(authority.PublicKey()),
		"attestor.identity": `{"identity":"attestor","issuer":"cluster"}`,
	}
	stored := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.NamespaceSystem, Name: "root"}, Data: map[string]string{"README": "for people"},
	}
	for entry, content := range entries {
		stored.Data[entry] = content
	}
	config := &v1alpha1.AttestorConfig{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.NamespaceSystem, Name: v1alpha1.SingletonName},
		Spec:       v1alpha1.AttestorConfigSpec{TrustedRootConfigMap: "root"},
	}
	from := reader(t, config, stored)
	got, err := (&Configuration{Reader: from, Direct: from}).TrustMaterial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(entries, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	stored.Data["attestor-v1.pub"] = "no key"
	from = reader(t, config, stored)
	if _, err := (&Configuration{Reader: from, Direct: from}).TrustMaterial(t.Context()); err == nil {
		t.Error("took a key that is none")
	}
}
