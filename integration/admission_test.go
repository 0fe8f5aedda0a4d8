//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

func TestAdmissionFrozenPodIsGuarded(t *testing.T) {
	held := suite.held.get(t, heldScene)
	pod := suite.pod(t, held.suspect())
	namespaced := func(args ...string) []string { return append([]string{"-n", held.namespace}, args...) }
	attempts := map[string][]string{
		"remove the label":     namespaced("label", "pod", victimName, "ugallu.io/frozen-"),
		"change the label":     namespaced("label", "--overwrite", "pod", victimName, "ugallu.io/frozen=other"),
		"add a label":          namespaced("label", "pod", victimName, "app=other"),
		"annotate":             namespaced("annotate", "pod", victimName, "note=x"),
		"change the image":     namespaced("set", "image", "pod/"+victimName, webName+"=busybox"),
		"delete":               namespaced("delete", "pod", victimName, "--wait=false"),
		"delete by force":      namespaced("delete", "pod", victimName, "--force", "--grace-period=0", "--wait=false"),
		"delete by a selector": namespaced("delete", "pods", "--wait=false", "--field-selector", "metadata.name="+victimName),
		"exec":                 namespaced("exec", victimName, "-c", sideName, "--", "true"),
		"attach":               namespaced("attach", victimName, "-c", sideName),
		"debug":                namespaced("debug", victimName, "--image=busybox", "--target="+sideName, "--", "true"),
		"forward a port":       namespaced("port-forward", victimName, ":80"),
		"copy a file out":      namespaced("cp", victimName+":/etc/hostname", t.TempDir()+"/hostname", "-c", sideName),
		"have it end":          namespaced("patch", "pod", victimName, "--subresource=status", "-p", `{"status":{"phase":"Failed"}}`),
		"replace the subject":  namespaced("patch", "pod", victimName, "--subresource=status", "-p", `{"metadata":{"labels":{"ugallu.io/frozen":null}}}`),
	}
	for name, attempt := range attempts {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			out, err := suite.run(ctx, attempt...)
			if err == nil {
				t.Fatalf("kubectl %s was allowed: %s", strings.Join(attempt, " "), out)
			}
			if !strings.Contains(err.Error(), held.incident) && !strings.Contains(err.Error(), pod.Labels[v1alpha1.LabelFrozen]) {
				t.Errorf("the refusal does not name incident %s: %v", held.incident, err)
			}
		})
	}
	t.Run("evict", func(t *testing.T) {
		eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: held.namespace, Name: victimName}}
		err := suite.SubResource("eviction").Create(t.Context(), &pod, eviction)
		if err == nil || !strings.Contains(err.Error(), held.incident) && !strings.Contains(err.Error(), pod.Labels[v1alpha1.LabelFrozen]) {
			t.Errorf("eviction answered %v, want a refusal that names incident %s", err, held.incident)
		}
	})
	after := suite.pod(t, held.suspect())
	if after.UID != pod.UID || after.DeletionTimestamp != nil || after.Labels[v1alpha1.LabelFrozen] != pod.Labels[v1alpha1.LabelFrozen] {
		t.Errorf("after the refusals the pod is uid %s, deletion %v, labels %v", after.UID, after.DeletionTimestamp, after.Labels)
	}
}

func TestAdmissionFreePodIsLeftAlone(t *testing.T) {
	held := suite.held.get(t, heldScene)
	suite.must(t, "-n", held.namespace, "label", "pod", receiverName, "app=receiver", "--overwrite")
	suite.must(t, "-n", held.namespace, "exec", receiverName, "--", "true")
}

// TestAdmissionRecordsStay tries to delete what a contained pod's release and the chain of custody stand on, and to take off
// the labels that it is found by, as the cluster's administrator.
func TestAdmissionRecordsStay(t *testing.T) {
	held := suite.held.get(t, heldScene)
	var incident v1alpha1.Incident
	suite.look(t, client.ObjectKey{Name: held.incident}, &incident)
	freeze := suite.responses(t, held)[v1alpha1.StepFreeze]
	bundle, _ := suite.sealed(t, string(freeze.UID))
	for _, line := range [][]string{
		{"delete", "incident", held.incident, "--wait=false"},
		{"label", "incident", held.incident, v1alpha1.LabelOpen + "-"},
		{"delete", "eventresponse", freeze.Name, "--wait=false"},
		{"label", "eventresponse", freeze.Name, v1alpha1.LabelStep + "-"},
		{"delete", "attestationbundle", bundle.Name, "--wait=false"},
		{"delete", "securityevent", incident.Status.CompletionEvent.Name, "--wait=false"},
	} {
		if said := suite.refused(t, line...); !strings.Contains(said, "ValidatingAdmissionPolicy") {
			t.Errorf("kubectl %s failed for another reason: %s", strings.Join(line, " "), said)
		}
	}
}

// annotate is the recipe's line with a value of choice.
func annotate(event, value string) []string {
	return []string{
		"-n", "ugallu-system", "annotate", "--overwrite", "securityevent", event, "ugallu.io/incident-acknowledged=" + value,
	}
}

func TestAdmissionAcknowledge(t *testing.T) {
	held := suite.held.get(t, heldScene)
	var incident v1alpha1.Incident
	suite.look(t, client.ObjectKey{Name: held.incident}, &incident)
	event := incident.Status.CompletionEvent.Name
	allowed := suite.mustAs(t, v1alpha1.NamespaceSystem, responder)
	said := suite.refused(t, annotate(event, "true")...)
	if !strings.Contains(said, "ugallu-system:"+responder) {
		t.Errorf("the refusal of the cluster's admin does not say who may: %s", said)
	}
	for _, value := range []string{"TRUE", "True", "yes", "1", "false"} {
		if said := allowed.refused(t, annotate(event, value)...); !strings.Contains(said, "true") {
			t.Errorf("the refusal of %q does not say what is accepted: %s", value, said)
		}
	}
	said = allowed.refused(t, "annotate", "securityevent", event, v1alpha1.AnnotationAcknowledgements+`=[{"username":"me"}]`)
	t.Logf("a forged stamp: %s", said)
	forged := detection(held)
	forged.Annotations = map[string]string{v1alpha1.AnnotationAcknowledged: "true"}
	if err := suite.Create(t.Context(), &forged); err == nil {
		t.Errorf("event %s was created with an acknowledgement", forged.Name)
	}
	suite.look(t, client.ObjectKey{Name: held.incident}, &incident)
	if isTrue(incident.Status.Conditions, v1alpha1.ConditionAcknowledged) || incident.Labels[v1alpha1.LabelOpen] != "true" {
		t.Errorf("after refusals the incident is\n%s", describe(incident.Status.Conditions))
	}
}

func TestAdmissionAuthorisedAcknowledgementReleases(t *testing.T) {
	released := suite.released.get(t, releasedScene)
	incident := suite.await(t, released, v1alpha1.ConditionReleased, time.Second)
	var event v1alpha1.SecurityEvent
	suite.look(t, client.ObjectKey{Name: incident.Status.CompletionEvent.Name}, &event)
	var stamps []v1alpha1.Acknowledgement
	if err := json.Unmarshal([]byte(event.Annotations[v1alpha1.AnnotationAcknowledgements]), &stamps); err != nil || len(stamps) != 1 {
		t.Fatalf("the stamp is %q (%v)", event.Annotations[v1alpha1.AnnotationAcknowledgements], err)
	}
	stamp := stamps[0]
	if stamp.Username != "system:serviceaccount:ugallu-system:"+responder || stamp.EventUID != string(event.UID) ||
		stamp.ManifestSHA256 != event.Spec.Evidence.SHA256 || stamp.MAC == "" || time.Since(stamp.At.Time) > time.Hour {
		t.Errorf("the stamp is %+v, event %s, manifest %s", stamp, event.UID, event.Spec.Evidence.SHA256)
	}
	suite.exec(t, released, victimName, "only", "cat", "/evidence")
	suite.must(t, "-n", released.namespace, "label", "pod", victimName, "app=free", "--overwrite")
}
