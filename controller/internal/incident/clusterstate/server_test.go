package clusterstate_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/incident/clusterstate"
	"ugallu.io/forensics/internal/apitest"
	"ugallu.io/forensics/internal/worm"
)

const account = "ugallu-forensics"

func create(t *testing.T, c client.Client, objects ...client.Object) {
	t.Helper()
	for _, object := range objects {
		if err := c.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
}

// permitted gives the controller's account the role that the manifests give it, and no other.
func permitted(t *testing.T, c client.Client) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "manifests", "base", "rbac", "forensics.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var role rbacv1.ClusterRole
	for _, part := range strings.Split(string(content), "---\n") {
		if strings.Contains(part, "kind: ClusterRole\n") {
			if err := yaml.UnmarshalStrict([]byte(part), &role); err != nil {
				t.Fatal(err)
			}
		}
	}
	create(t, c, &role, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: account},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: v1alpha1.NamespaceSystem, Name: account}},
	})
}

// run runs the reconciler as the account that it has in a cluster, until the test ends.
func run(t *testing.T, server *rest.Config, scheme *runtime.Scheme, store worm.Store) {
	t.Helper()
	server = rest.CopyConfig(server)
	server.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + v1alpha1.NamespaceSystem + ":" + account, Groups: []string{"system:authenticated"},
	}
	mgr, err := ctrl.NewManager(server, ctrl.Options{Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}})
	if err != nil {
		t.Fatal(err)
	}
	r := &clusterstate.Reconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Clock: clock.RealClock{},
		Open: func(context.Context, v1alpha1.Destination) (worm.Store, error) { return store, nil },
	}
	if err := r.SetupWithManager(mgr); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// victim is a pod of a ReplicaSet with an account that may do something, and an incident about it.
func victim(t *testing.T, c client.Client) *v1alpha1.Incident {
	t.Helper()
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{
			NodeName: "worker", ServiceAccountName: "web", Containers: []corev1.Container{{Name: "web", Image: "web"}},
		},
	}
	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "sandbox", Name: "web"},
		Spec:       appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template},
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "sandbox", Name: "victim"}, Spec: template.Spec}
	create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "sandbox"}}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker"}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "sandbox", Name: "web"}}, set)
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: set.Name, UID: set.UID}}
	create(t, c, pod, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "sandbox", Name: "web"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "sandbox", Name: "web"}},
	})
	for name, uid := range map[string]string{"one": string(pod.UID), "other": "another"} {
		event := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "sandbox", Name: name}, Message: "event about " + name}
		event.InvolvedObject = corev1.ObjectReference{Kind: "Pod", Namespace: "sandbox", Name: "victim"}
		event.InvolvedObject.UID = pod.UID
		if uid == "another" {
			event.InvolvedObject.UID = "another"
		}
		create(t, c, event)
	}
	incident := opened(pod)
	create(t, c, incident)
	return incident
}

func opened(pod *corev1.Pod) *v1alpha1.Incident {
	const name = "0123456789abcdef"
	return &v1alpha1.Incident{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.LabelOpen: "true"}},
		Spec: v1alpha1.IncidentSpec{
			Trigger: v1alpha1.Trigger{
				Ref: v1alpha1.Ref{Name: "synth", UID: "event"}, Type: "HoneypotTriggered", Severity: v1alpha1.SeverityCritical, SpecSHA256: evidence.Digest(nil),
			},
			Pod:        v1alpha1.PodRef{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), NodeName: pod.Spec.NodeName},
			SubjectUID: v1alpha1.SubjectResolved, Freeze: v1alpha1.PodFreezeAction{Processes: v1alpha1.FreezeUntilReleased, Memory: v1alpha1.MemoryAuto},
			Snapshot: v1alpha1.FilesystemSnapshotAction{
				Destination: v1alpha1.Destination{
					Bucket: "evidence", Prefix: v1alpha1.EvidencePrefix(name), LockMode: v1alpha1.LockCompliance,
					RetainUntil: metav1.NewTime(time.Now().Add(time.Hour)),
				},
				Compression: v1alpha1.CompressionZstd, MaxEntries: 1, MaxDuration: metav1.Duration{Duration: time.Minute},
			},
			OnFailure: v1alpha1.OnFailureHold, Disposition: v1alpha1.DispositionResume, RequiredAcknowledgements: 1,
		},
	}
}

// TestAccountOfTheManifestsReadsEverything proves the permissions, which a fake client does not know, and the selection of
// events, which the API server does.
func TestAccountOfTheManifestsReadsEverything(t *testing.T) {
	server := apitest.Start(t)
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(server, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	permitted(t, c)
	store := worm.NewMemory()
	run(t, server, scheme, store)
	state := awaitState(t, c, victim(t, c))
	if len(state.Gaps) > 0 {
		t.Errorf("gaps %+v", state.Gaps)
	}
	body, err := store.Open(t.Context(), state.Object.Key, state.Object.VersionID)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	var head struct{ Documents []string }
	if err := yaml.Unmarshal([]byte(strings.Split(string(content), "---\n")[0]), &head); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"Pod sandbox/victim", "ReplicaSet sandbox/web", "ServiceAccount sandbox/web", "Node worker",
		"RBACSummary system:serviceaccount:sandbox:web", "Event sandbox/one",
	}
	if diff := cmp.Diff(want, head.Documents); diff != "" {
		t.Error(diff)
	}
	// A role of no rules here, where nothing aggregates them, and one that every cluster binds everybody to.
	for _, part := range []string{"name: view", "name: system:basic-user", "- selfsubjectaccessreviews"} {
		if !strings.Contains(string(content), part) {
			t.Errorf("%q is missing", part)
		}
	}
}

func awaitState(t *testing.T, c client.Client, incident *v1alpha1.Incident) *v1alpha1.ClusterState {
	t.Helper()
	for range 600 {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(incident), incident); err != nil {
			t.Fatal(err)
		}
		if state := incident.Status.ClusterState; state != nil && state.Object != nil {
			return state
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("no cluster state: %+v", incident.Status)
	return nil
}
