package clusterstate

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/yaml"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

const incidentName = "0123456789abcdef"

// world is a cluster with one pod of a Deployment and everything around it.
type world struct {
	t     *testing.T
	base  client.WithWatch
	store *worm.Memory
	// refused kinds answer 403, broken ones with an error that passes by itself after as many answers.
	refused map[string]bool
	broken  map[string]int
	// unusable is what the store answers.
	unusable error
	r        *Reconciler
}

func newWorld(t *testing.T, change func(*v1alpha1.Incident)) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	incident := &v1alpha1.Incident{
		ObjectMeta: metav1.ObjectMeta{Name: incidentName, UID: "incident-uid", Labels: map[string]string{v1alpha1.LabelOpen: "true"}},
		Spec: v1alpha1.IncidentSpec{
			Pod: v1alpha1.PodRef{Namespace: "sandbox", Name: "victim", UID: "pod-uid", NodeName: "worker"},
			Snapshot: v1alpha1.FilesystemSnapshotAction{Destination: v1alpha1.Destination{
				Bucket: "evidence", Prefix: v1alpha1.EvidencePrefix(incidentName), LockMode: v1alpha1.LockCompliance,
				RetainUntil: metav1.NewTime(time.Now().Add(time.Hour).UTC().Truncate(time.Second)),
			}},
		},
	}
	change(incident)
	w := &world{t: t, store: worm.NewMemory(), refused: map[string]bool{}, broken: map[string]int{}}
	w.base = fake.NewClientBuilder().WithScheme(scheme).WithReturnManagedFields().WithObjects(incident).WithObjects(objects()...).
		WithStatusSubresource(&v1alpha1.Incident{}).
		WithIndex(&corev1.Event{}, "involvedObject.uid", func(o client.Object) []string {
			fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
			if err != nil {
				t.Fatal(err)
			}
			uid, _, _ := unstructured.NestedString(fields, "involvedObject", "uid")
			return []string{uid}
		}).Build()
	w.restart()
	return w
}

// restart forgets what the controller kept.
func (w *world) restart() {
	w.r = &Reconciler{
		Client: w.base, Live: interceptor.NewClient(w.base, w.answers()),
		Open: func(context.Context, v1alpha1.Destination) (worm.Store, error) { return w.store, w.unusable },
		// The time of the API server's format.
		Clock: clocktesting.NewFakePassiveClock(time.Date(2026, 3, 1, 12, 0, 0, 1000, time.UTC)),
	}
}

func (w *world) answers() interceptor.Funcs {
	answer := func(o runtime.Object) error {
		kind := strings.TrimSuffix(kindOf(w.t, w.base, o), "List")
		if kind == "Secret" {
			w.t.Errorf("a Secret was asked for")
		}
		if w.refused[kind] {
			return apierrors.NewForbidden(schema.GroupResource{Resource: strings.ToLower(kind)}, "", errors.New("not for you"))
		}
		if w.broken[kind] > 0 {
			w.broken[kind]--
			return errors.New("hiccup")
		}
		return nil
	}
	return interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if err := answer(o); err != nil {
				return err
			}
			return c.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, o client.ObjectList, opts ...client.ListOption) error {
			if err := answer(o); err != nil {
				return err
			}
			return c.List(ctx, o, opts...)
		},
	}
}

func kindOf(t *testing.T, c client.Client, o runtime.Object) string {
	t.Helper()
	kind, err := c.GroupVersionKindFor(o)
	if err != nil {
		t.Fatal(err)
	}
	return kind.Kind
}

func (w *world) reconcile() error {
	w.t.Helper()
	_, err := w.r.Reconcile(w.t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: incidentName}})
	return err
}

func (w *world) must() {
	w.t.Helper()
	if err := w.reconcile(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) recorded() *v1alpha1.ClusterState {
	w.t.Helper()
	var incident v1alpha1.Incident
	if err := w.base.Get(w.t.Context(), client.ObjectKey{Name: incidentName}, &incident); err != nil {
		w.t.Fatal(err)
	}
	return incident.Status.ClusterState
}

func (w *world) delete(object client.Object) {
	w.t.Helper()
	if err := w.base.Delete(w.t.Context(), object); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) update(object client.Object) {
	w.t.Helper()
	if err := w.base.Update(w.t.Context(), object); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) content() []byte {
	w.t.Helper()
	stored := w.store.Objects()
	if len(stored) != 1 {
		w.t.Fatalf("%d objects are stored", len(stored))
	}
	body, err := w.store.Open(w.t.Context(), stored[0].Key, "")
	if err != nil {
		w.t.Fatal(err)
	}
	content, err := io.ReadAll(body)
	if err != nil {
		w.t.Fatal(err)
	}
	return content
}

// documents parses what is stored, the header apart.
func (w *world) documents() (header, []map[string]any) {
	w.t.Helper()
	parts := bytes.Split(w.content(), []byte("---\n"))
	var head header
	if err := yaml.UnmarshalStrict(parts[0], &head); err != nil {
		w.t.Fatal(err)
	}
	documents := make([]map[string]any, len(parts)-1)
	for i, part := range parts[1:] {
		if err := yaml.Unmarshal(part, &documents[i]); err != nil {
			w.t.Fatal(err)
		}
	}
	return head, documents
}

func objects() []client.Object {
	managed := []metav1.ManagedFieldsEntry{{
		Manager: "kubectl", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1("{}"),
	}}
	container := corev1.Container{Name: "web", Image: "web:1", Env: []corev1.EnvVar{
		{Name: "DB_PASSWORD", Value: "hunter2"},
		{Name: "COLOUR", Value: "red"},
		{Name: "TOKEN", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "secret"}, Key: "token",
		}}},
	}}
	template := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{container}}}
	applied := `{"spec":{"template":{"spec":{"containers":[{"env":[{"name":"DB_PASSWORD","value":"hunter2"}]}]}}}}`
	return []client.Object{
		&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "sandbox", Name: "victim", UID: "pod-uid", ManagedFields: managed,
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "victim-1", UID: "set-uid"}},
			},
			Spec: corev1.PodSpec{
				NodeName: "worker", ServiceAccountName: "web", InitContainers: []corev1.Container{container}, Containers: []corev1.Container{container},
			},
		},
		&appsv1.ReplicaSet{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "sandbox", Name: "victim-1", UID: "set-uid",
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "victim", UID: "deployment-uid"}},
			},
			Spec: appsv1.ReplicaSetSpec{Template: template},
		},
		&appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "sandbox", Name: "victim", UID: "deployment-uid", Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: applied},
			},
			Spec: appsv1.DeploymentSpec{Template: template},
		},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker", UID: "node-uid"}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "sandbox", Name: "web", UID: "account-uid"}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "sandbox", Name: "secret"}, Data: map[string][]byte{"token": []byte("swordfish")}},
		about("b", "pod-uid"), about("a", "pod-uid"), about("other", "other-uid"),
		&rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "reader"},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}}},
		},
		&rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Namespace: "payments", Name: "writer"},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"*"}}},
		},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "everybody", UID: "1"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"},
			Subjects: []rbacv1.Subject{{Kind: "Group", Name: "system:serviceaccounts:sandbox"}, {Kind: "User", Name: "jane"}},
		},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "another", UID: "2"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "other", Name: "web"}, {Kind: "Group", Name: "system:masters"}},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: "payments", Name: "web", UID: "3"}, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "writer"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "sandbox", Name: "web"}},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: "sandbox", Name: "by-user-name", UID: "4"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"},
			Subjects: []rbacv1.Subject{{Kind: "User", Name: "system:serviceaccount:sandbox:web"}},
		},
	}
}

func about(name, uid string) *corev1.Event {
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: "sandbox", Name: name},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "sandbox", Name: "victim", UID: types.UID(uid)},
		Message:        "about " + uid,
	}
}
