package config_test

import (
	"strings"
	"testing"

	"filippo.io/age"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/config"
)

func recipient(t *testing.T) string {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return identity.Recipient().String()
}

func hybrid(t *testing.T) string {
	t.Helper()
	identity, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return identity.Recipient().String()
}

func TestReadyNamesTheFieldThatCannotBeUsed(t *testing.T) {
	right := recipient(t)
	tests := map[string]struct {
		names      string
		recipients []string
		ready      metav1.ConditionStatus
		says       []string
	}{
		"all right":          {"PASS|TOKEN", []string{right, recipient(t)}, metav1.ConditionTrue, nil},
		"no expression":      {"PASS(", []string{right}, metav1.ConditionFalse, []string{"spec.snapshot.redactNames", "missing closing )", "redact every value"}},
		"no RE2":             {"(?=PASS)", []string{right}, metav1.ConditionFalse, []string{"spec.snapshot.redactNames"}},
		"one bad recipient":  {"", []string{right, "age1nonsense"}, metav1.ConditionFalse, []string{"WORMConfig ugallu-system/default spec.ageRecipients[1]", "encrypt to the other 1"}},
		"no good recipient":  {"", []string{"age1nonsense"}, metav1.ConditionFalse, []string{"spec.ageRecipients[0]", "captures fail"}},
		"recipients at odds": {"", []string{right, hybrid(t)}, metav1.ConditionFalse, []string{"spec.ageRecipients: ", "captures fail"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			store := &v1alpha1.WORMConfig{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.NamespaceSystem, Name: v1alpha1.SingletonName}}
			store.Spec.Encryption, store.Spec.AgeRecipients = v1alpha1.EncryptionAge, tt.recipients
			spec := v1alpha1.ForensicsConfigSpec{}
			spec.Snapshot.RedactEnvironment, spec.Snapshot.RedactNames = v1alpha1.RedactMatching, tt.names
			ready := config.Ready(spec, store)
			if ready.Status != tt.ready || (tt.ready == metav1.ConditionFalse && ready.Reason != v1alpha1.ReasonConfigInvalid) {
				t.Errorf("%+v", ready)
			}
			for _, says := range tt.says {
				if !strings.Contains(ready.Message, says) {
					t.Errorf("message %q does not say %q", ready.Message, says)
				}
			}
		})
	}
}
