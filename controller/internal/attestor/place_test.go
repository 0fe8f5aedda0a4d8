package attestor

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ugallu.io/forensics/api/v1alpha1"
)

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
