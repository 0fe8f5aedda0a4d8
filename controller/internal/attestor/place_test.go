package attestor

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

func TestExtendingToTheDateThatWasToldIsEnough(t *testing.T) {
	store := &v1alpha1.WORMConfig{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.NamespaceSystem, Name: v1alpha1.SingletonName},
		Spec:       v1alpha1.WORMConfigSpec{Bucket: "evidence", ObjectLock: v1alpha1.LockCompliance, RetainDays: 30},
	}
	made := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	bundle := &v1alpha1.AttestationBundle{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(made)}}
	bundle.Spec.AttestedFor.UID = "some-event"
	told := made.AddDate(0, 0, 30)
	kept := worm.Object{Lock: worm.Lock{Mode: string(v1alpha1.LockCompliance), RetainUntil: told.Add(-time.Hour)}}
	for _, tries := range []time.Duration{time.Second, time.Hour, 48 * time.Hour} {
		at, err := placeOf(t.Context(), reader(t, store), bundle, made.Add(tries))
		if err != nil {
			t.Fatal(err)
		}
		if err := at.keeps(kept); err == nil || !strings.Contains(err.Error(), told.Format(time.RFC3339)) {
			t.Errorf("after %s: %v, want a refusal that names %s", tries, err, told)
		}
		extended := kept
		extended.Lock.RetainUntil = told
		if err := at.keeps(extended); err != nil {
			t.Errorf("after %s, extended: %v", tries, err)
		}
	}
}

func TestEventIsKeptAtLeastAsLongAsTheEvidenceThatItMayLeadTo(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	store := &v1alpha1.WORMConfig{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.NamespaceSystem, Name: v1alpha1.SingletonName},
		Spec:       v1alpha1.WORMConfigSpec{Bucket: "evidence", ObjectLock: v1alpha1.LockGovernance, RetainDays: 30},
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		evidence v1alpha1.EvidenceConfig
		days     int
		mode     v1alpha1.LockMode
	}{
		"nothing of its own": {v1alpha1.EvidenceConfig{}, 31, v1alpha1.LockGovernance},
		"longer":             {v1alpha1.EvidenceConfig{RetainDays: ptr.To[int32](365)}, 366, v1alpha1.LockGovernance},
		"shorter":            {v1alpha1.EvidenceConfig{RetainDays: ptr.To[int32](7)}, 31, v1alpha1.LockGovernance},
		"firmer":             {v1alpha1.EvidenceConfig{ObjectLock: v1alpha1.LockCompliance}, 31, v1alpha1.LockCompliance},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			config := &v1alpha1.ForensicsConfig{
				ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.SingletonName},
				Spec:       v1alpha1.ForensicsConfigSpec{Evidence: tt.evidence},
			}
			reader := fake.NewClientBuilder().WithScheme(scheme).WithObjects(store, config).Build()
			bundle := &v1alpha1.AttestationBundle{}
			bundle.Spec.AttestedFor.UID = "some-event"
			got, err := placeOf(t.Context(), reader, bundle, now)
			if err != nil {
				t.Fatal(err)
			}
			until := now.Add(time.Duration(tt.days) * 24 * time.Hour)
			if !got.lock.RetainUntil.Equal(until) || got.lock.Mode != string(tt.mode) {
				t.Errorf("locked %s until %s, want %s until %s", got.lock.Mode, got.lock.RetainUntil, tt.mode, until)
			}
		})
	}
}
