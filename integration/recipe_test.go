//go:build integration

package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// sandbox and suspect are the recipe's names.
const (
	sandbox = "forensics-sandbox"
	suspect = "forensics-victim"
)

// terminal is a shell in a folder with the recipe's files, where kubectl is on the path.
type terminal struct {
	cluster    *cluster
	folder     string
	kubeconfig string
}

// enter runs a line of the recipe as printed and demands that the output holds every wanted text.
func (t terminal) enter(tb testing.TB, line string, wanted ...string) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 90*time.Second)
	defer cancel()
	shell := exec.CommandContext(ctx, "sh", "-c", line) // #nosec G204 -- the recipe's lines
	shell.Dir = t.folder
	shell.Env = append(os.Environ(), "KUBECONFIG="+t.kubeconfig, "PATH="+filepath.Dir(t.cluster.path)+":"+os.Getenv("PATH"))
	out, err := shell.CombinedOutput()
	tb.Logf("$ %s\n%s", line, out)
	if err != nil {
		tb.Fatalf("%s: %v", line, err)
	}
	for _, want := range wanted {
		if !strings.Contains(string(out), want) {
			tb.Errorf("%s: the output lacks %q", line, want)
		}
	}
	return string(out)
}

func (c *cluster) terminal(tb testing.TB) terminal {
	tb.Helper()
	folder := tb.TempDir()
	for name, content := range map[string]string{"forensics-config.yaml": recipeConfig, "synth.yaml": recipeEvent} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return terminal{cluster: c, folder: folder, kubeconfig: c.kubeconfig}
}

func TestRecipe(t *testing.T) {
	clearSandbox(t)
	term := suite.terminal(t)
	recipeSanity(t, term)
	scene := recipeDetection(t, term)
	recipePipeline(t, term, scene)
	completed := recipeEvidence(t, term, scene)
	recipeAcknowledge(t, term, scene, completed)
	recipeCleanup(t, term, scene)
}

// clearSandbox removes what an earlier, failed run left under the recipe's fixed name.
func clearSandbox(t *testing.T) {
	t.Helper()
	var open v1alpha1.IncidentList
	if err := suite.List(t.Context(), &open, client.MatchingLabels{v1alpha1.LabelOpen: "true"}); err != nil {
		t.Fatal(err)
	}
	for _, incident := range open.Items {
		if incident.Spec.Pod.Namespace == sandbox {
			if err := suite.release(t.Context(), &scene{namespace: sandbox, incident: incident.Name}); err != nil {
				t.Fatalf("release what an earlier run left: %v", err)
			}
		}
	}
	suite.must(t, "delete", "namespace", sandbox, "--ignore-not-found", "--timeout=60s")
}

func recipeSanity(t *testing.T, term terminal) {
	t.Helper()
	term.enter(t, `kubectl -n ugallu-system get deploy ugallu-forensics`, "ugallu-forensics", "2/2")
	term.enter(t, `kubectl -n ugallu-system-privileged get deploy ugallu-forensics-snapshot`, "ugallu-forensics-snapshot", "1/1")
	backend := term.enter(t, `kubectl get forensicsconfig default -o jsonpath='{.status.freezeBackend}'`)
	if backend != "CoreV1" && backend != "Cilium" {
		t.Errorf("freezeBackend is %q, want Cilium or CoreV1", backend)
	}
	term.enter(t, `kubectl apply -f forensics-config.yaml`, "forensicsconfig.security.ugallu.io/default")
}

func recipeDetection(t *testing.T, term terminal) *scene {
	t.Helper()
	term.enter(t, `kubectl create namespace forensics-sandbox`, "namespace/forensics-sandbox created")
	term.enter(t, `kubectl -n forensics-sandbox run forensics-victim --image=nginx --restart=Never`, "pod/forensics-victim created")
	term.enter(t, `kubectl -n forensics-sandbox wait pod/forensics-victim --for=condition=Ready --timeout=60s`, "condition met")
	created := term.enter(t, `kubectl create -f synth.yaml`, "securityevent.security.ugallu.io/synth-", "created")
	name, _, _ := strings.Cut(strings.TrimPrefix(created, "securityevent.security.ugallu.io/"), " ")
	s := &scene{namespace: sandbox}
	suite.look(t, client.ObjectKey{Name: name}, &s.event)
	suite.look(t, client.ObjectKey{Namespace: sandbox, Name: suspect}, &s.victim)
	s.incident = v1alpha1.IncidentName(string(s.event.UID))
	return s
}

func recipePipeline(t *testing.T, term terminal, s *scene) {
	t.Helper()
	suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
	var incident v1alpha1.Incident
	suite.look(t, client.ObjectKey{Name: s.incident}, &incident)
	names := []string{}
	for _, step := range []v1alpha1.Step{v1alpha1.StepFreeze, v1alpha1.StepSnapshot, v1alpha1.StepUpload} {
		names = append(names, v1alpha1.ResponseName(s.incident, step, 1))
	}
	term.enter(t, "kubectl get eventresponses -A \\\n  --sort-by=.metadata.creationTimestamp \\\n  --selector=ugallu.io/incident-uid", names...)
	parent := ""
	for i, step := range []string{"podfreeze", "filesystem-snapshot", "evidence-upload"} {
		var object struct {
			Metadata struct{ Labels map[string]string }
		}
		out := term.enter(t, fmt.Sprintf(`kubectl get eventresponse %s -o yaml`, names[i]))
		if err := yaml.Unmarshal([]byte(out), &object); err != nil {
			t.Fatal(err)
		}
		labels := object.Metadata.Labels
		if labels["ugallu.io/incident-uid"] != string(incident.UID) || labels["ugallu.io/step"] != step || labels["ugallu.io/parent-er"] != parent {
			t.Errorf("labels of %s are %v; want incident %s, step %s, parent %q", names[i], labels, incident.UID, step, parent)
		}
		parent = names[i]
	}
	pod := suite.pod(t, client.ObjectKey{Namespace: sandbox, Name: suspect})
	if pod.Labels["ugallu.io/frozen"] != string(incident.UID) {
		t.Errorf("the pod's label ugallu.io/frozen is %q, want %s", pod.Labels["ugallu.io/frozen"], incident.UID)
	}
}

// recipeEvidence returns the name of the Completed event.
func recipeEvidence(t *testing.T, term terminal, s *scene) string {
	t.Helper()
	out := term.enter(t, "kubectl get securityevent -A \\\n  --field-selector spec.type=IncidentCaptureCompleted \\\n  -o yaml")
	var list v1alpha1.SecurityEventList
	if err := yaml.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	for _, event := range list.Items {
		if event.Spec.Type != v1alpha1.EventCaptureCompleted || event.Spec.Evidence == nil {
			t.Errorf("event %s has type %s and evidence %v", event.Name, event.Spec.Type, event.Spec.Evidence)
			continue
		}
		if event.Spec.Trigger == nil || event.Spec.Trigger.UID != string(s.event.UID) {
			continue
		}
		store := suite.analyst(t)
		bucket, path := splitURL(t, event.Spec.Evidence.URL)
		if want := "forensics/" + s.incident + "/manifest-" + event.Spec.Evidence.SHA256 + ".json"; bucket != "ugallu-forensics" || path != want {
			t.Errorf("evidence url is %s, want s3://ugallu-forensics/%s", event.Spec.Evidence.URL, want)
		}
		incident := suite.await(t, s, v1alpha1.ConditionUploaded, time.Second)
		raw := store.fetch(t, bucket, *incident.Status.Manifest)
		if evidence.Digest(raw) != event.Spec.Evidence.SHA256 {
			t.Errorf("the manifest's digest is not that of the event")
		}
		return event.Name
	}
	t.Fatalf("no IncidentCaptureCompleted names trigger %s\n%s", s.event.Name, suite.account(t.Context(), s))
	return ""
}

func recipeAcknowledge(t *testing.T, term terminal, s *scene, completed string) {
	t.Helper()
	authorised := suite.mustAs(t, v1alpha1.NamespaceSystem, responder)
	asResponder := terminal{cluster: term.cluster, folder: term.folder, kubeconfig: authorised.kubeconfig}
	asResponder.enter(t, "kubectl -n ugallu-system annotate securityevent "+completed+" \\\n  ugallu.io/incident-acknowledged=true", completed+" annotated")
	suite.await(t, s, v1alpha1.ConditionReleased, time.Minute)
	unfreeze := suite.responses(t, s)[v1alpha1.StepUnfreeze]
	if unfreeze.Status.Phase != v1alpha1.ResponseSucceeded {
		t.Errorf("podunfreeze is %q\n%s", unfreeze.Status.Phase, describe(unfreeze.Status.Conditions))
	}
	pod := suite.pod(t, client.ObjectKey{Namespace: sandbox, Name: suspect})
	if label, still := pod.Labels["ugallu.io/frozen"]; still || pod.Status.Phase != corev1.PodRunning {
		t.Errorf("the released pod is %s with label ugallu.io/frozen %q", pod.Status.Phase, label)
	}
	policies := suite.must(t, "-n", sandbox, "get", "networkpolicies", "-o", "name")
	if strings.TrimSpace(policies) != "" {
		t.Errorf("the pod is not back to its normal network policy: %s", policies)
	}
}

func recipeCleanup(t *testing.T, term terminal, s *scene) {
	t.Helper()
	term.enter(t, `kubectl delete namespace forensics-sandbox`, `namespace "forensics-sandbox" deleted`)
	term.enter(t, "kubectl delete securityevent "+s.event.Name, `"`+s.event.Name+`" deleted`)
	kept := suite.must(t, "get", "eventresponses", "-o", "name")
	if !strings.Contains(kept, v1alpha1.ResponseName(s.incident, v1alpha1.StepUnfreeze, 1)) {
		t.Errorf("the chain of responses did not stay in the cluster")
	}
}
