package clusterstate

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// repeated is a pod that writes out the value of its variable wherever it can, and a shorter one that must stand.
func repeated(t *testing.T, value string) map[string]any {
	t.Helper()
	applied, err := json.Marshal(map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"args": []any{"--token=" + value}}}}})
	if err != nil {
		t.Fatal(err)
	}
	probe := map[string]any{"exec": map[string]any{"command": []any{"check", value}}}
	return map[string]any{
		"metadata": map[string]any{"name": "short", "annotations": map[string]any{
			"note": "the token is " + value, corev1.LastAppliedConfigAnnotation: string(applied),
		}},
		"spec": map[string]any{"containers": []any{map[string]any{
			"name": "short", "command": []any{"run", value}, "args": []any{"--token=" + value + ",short"}, "livenessProbe": probe,
			"env": []any{map[string]any{"name": "TOKEN", "value": value}, map[string]any{"name": "SIZE", "value": "short"}},
		}}},
	}
}

func TestValueThatIsRepeatedIsRedactedThereToo(t *testing.T) {
	for name, value := range map[string]string{"plain": "correct horse", "with a quotation mark": `correct "horse"` + "\n<battery>"} {
		t.Run(name, func(t *testing.T) {
			s := &state{room: maxBytes, redact: newRedaction(v1alpha1.FilesystemSnapshotAction{RedactEnvironment: v1alpha1.RedactAll})}
			event := map[string]any{"message": "Back-off: run " + value + " failed"}
			s.add("Event", event)
			pod := repeated(t, value)
			s.add("Pod", pod)
			content, err := s.render(&v1alpha1.Incident{})
			if err != nil {
				t.Fatal(err)
			}
			quoted, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			stored := string(content.yaml)
			for _, secret := range []string{value, "correct", strings.Trim(string(quoted), `"`)} {
				if strings.Contains(stored, secret) {
					t.Errorf("%s is in it:\n%s", secret, stored)
				}
			}
			// The variable, command, args, probe, two annotations, and the event.
			if found := strings.Count(stored, "sha256:"+evidence.Digest([]byte(value))); found != 7 {
				t.Errorf("replaced %d times:\n%s", found, stored)
			}
			if strings.Count(stored, "short") != 3 {
				t.Errorf("a short value was replaced where it is none:\n%s", stored)
			}
		})
	}
}

func TestSecretInWhatWasNotToBeRedactedIsReplacedThere(t *testing.T) {
	const secret = "correct-horse"
	get := map[string]any{
		"path": "/healthz?token=" + secret, "port": int64(80), "scheme": "HTTP",
		"httpHeaders": []any{map[string]any{"name": "Cookie", "value": "Authorization=" + secret}},
	}
	pod := func() map[string]any {
		return map[string]any{"spec": map[string]any{"containers": []any{map[string]any{
			"livenessProbe": map[string]any{"httpGet": get},
			"env": []any{
				map[string]any{"name": "DATABASE_URL", "value": "postgres://shop:" + secret + "@db/shop"},
				map[string]any{"name": "DB_PASSWORD", "value": secret},
				map[string]any{"name": "POD_IP", "valueFrom": map[string]any{"fieldRef": map[string]any{"fieldPath": "status.podIP"}}},
			},
		}}}}
	}
	applied, err := json.Marshal(pod())
	if err != nil {
		t.Fatal(err)
	}
	s := &state{room: maxBytes, redact: newRedaction(v1alpha1.FilesystemSnapshotAction{RedactEnvironment: v1alpha1.RedactMatching, RedactNames: "PASSWORD"})}
	written := pod()
	written["metadata"] = map[string]any{"annotations": map[string]any{corev1.LastAppliedConfigAnnotation: string(applied)}}
	s.add("Pod", written)
	content, err := s.render(&v1alpha1.Incident{})
	if err != nil {
		t.Fatal(err)
	}
	stored, digest := string(content.yaml), "sha256:"+evidence.Digest([]byte(secret))
	if strings.Contains(stored, secret) {
		t.Errorf("the secret is in it:\n%s", stored)
	}
	for _, part := range []string{"postgres://shop:" + digest + "@db/shop", "/healthz?token=" + digest, "Authorization=" + digest} {
		// The pod, and what was applied.
		if found := strings.Count(stored, part); found != 2 {
			t.Errorf("%s stands %d times:\n%s", part, found, stored)
		}
	}
}

func TestNothingIsReplacedThatWasNotRedacted(t *testing.T) {
	s := &state{room: maxBytes, redact: newRedaction(v1alpha1.FilesystemSnapshotAction{RedactEnvironment: v1alpha1.RedactMatching, RedactNames: "SIZE"})}
	s.add("Pod", repeated(t, "correct-horse"))
	content, err := s.render(&v1alpha1.Incident{})
	if err != nil {
		t.Fatal(err)
	}
	if found := strings.Count(string(content.yaml), "correct-horse"); found != 6 {
		t.Errorf("stands %d times:\n%s", found, content.yaml)
	}
}
