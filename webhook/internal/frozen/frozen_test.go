package frozen_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/webhook/internal/frozen"
)

const (
	controller = "system:serviceaccount:ugallu-system:ugallu-forensics"
	incident   = "0b7a0e0c-1f4a-4bcd-9c39-2f7d5c1d1111"
	admin      = "kubernetes-admin"
	node       = "system:node:worker"
)

type change func(*corev1.Pod)

func pod(changes ...change) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "sandbox", Name: "victim", UID: "pod-1",
			Labels: map[string]string{"app": "web"}, Annotations: map[string]string{"note": "one"},
		},
		Spec: corev1.PodSpec{NodeName: "worker", Containers: []corev1.Container{{Name: "web", Image: "nginx"}}},
	}
	for _, c := range changes {
		c(p)
	}
	return p
}

func held(p *corev1.Pod)        { p.Labels[v1alpha1.LabelFrozen] = incident }
func heldByOther(p *corev1.Pod) { p.Labels[v1alpha1.LabelFrozen] = "another" }
func otherLabel(p *corev1.Pod)  { p.Labels["app"] = "other" }
func otherNote(p *corev1.Pod)   { p.Annotations["note"] = "two" }
func noNote(p *corev1.Pod)      { p.Annotations = nil }
func otherImage(p *corev1.Pod)  { p.Spec.Containers[0].Image = "busybox" }
func finalized(p *corev1.Pod)   { p.Finalizers = []string{"example.com/wait"} }
func running(p *corev1.Pod)     { p.Status.Phase = corev1.PodRunning }
func elsewhere(p *corev1.Pod)   { p.Spec.NodeName = "other" }
func unscheduled(p *corev1.Pod) { p.Spec.NodeName = "" }
func deleted(p *corev1.Pod)     { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }

func raw(t *testing.T, p *corev1.Pod) runtime.RawExtension {
	t.Helper()
	if p == nil {
		return runtime.RawExtension{}
	}
	content, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return runtime.RawExtension{Raw: content}
}

func TestGuardKeepsFrozenPodsAsTheyAre(t *testing.T) {
	const (
		create = admissionv1.Create
		update = admissionv1.Update
		remove = admissionv1.Delete
	)
	tests := map[string]struct {
		operation     admissionv1.Operation
		subresource   string
		user          string
		before, after *corev1.Pod
		refused       string // part of the refusal; empty is allowed
	}{
		"labels":               {update, "", admin, pod(held), pod(held, otherLabel), "update of labels"},
		"annotations":          {update, "", admin, pod(held), pod(held, otherNote), "update of annotations"},
		"annotations removed":  {update, "", admin, pod(held), pod(held, noNote), "update of annotations"},
		"spec":                 {update, "", admin, pod(held), pod(held, otherImage), "update of spec"},
		"all at once":          {update, "", admin, pod(held), pod(held, otherImage, otherLabel, otherNote), "update of spec, labels, annotations"},
		"the frozen label":     {update, "", admin, pod(held), pod(), "update of labels"},
		"another incident":     {update, "", admin, pod(held), pod(heldByOther), "update of labels"},
		"kubelet's labels":     {update, "", node, pod(held), pod(held, otherLabel), "update of labels"},
		"a finalizer added":    {update, "", admin, pod(held), pod(held, finalized), "update of finalizers"},
		"a finalizer gone":     {update, "", admin, pod(held, finalized), pod(held), ""},
		"nothing changed":      {update, "", admin, pod(held), pod(held), ""},
		"controller labels":    {update, "", controller, pod(held), pod(otherLabel), ""},
		"controller annotates": {update, "", controller, pod(held), pod(held, otherNote), ""},
		"controller and spec":  {update, "", controller, pod(held), pod(held, otherImage), "update of spec"},

		"freezing by hand":          {update, "", admin, pod(), pod(held), "may not set this label"},
		"freezing by kubelet":       {update, "status", node, pod(), pod(held), "may not set this label"},
		"freezing by controller":    {update, "", controller, pod(), pod(held), ""},
		"created frozen":            {create, "", "system:serviceaccount:kube-system:replicaset-controller", nil, pod(held), "may not set this label"},
		"created by the controller": {create, "", controller, nil, pod(held), ""},
		"created free":              {create, "", admin, nil, pod(), ""},
		"free pod changed":          {update, "", admin, pod(), pod(otherImage), ""},

		"status":                        {update, "status", node, pod(held), pod(held, running), ""},
		"labels through status":         {update, "status", admin, pod(held), pod(), "update of labels"},
		"annotations through status":    {update, "status", admin, pod(held), pod(held, noNote), "update of annotations"},
		"annotations as the pod dies":   {update, "status", admin, pod(held, deleted), pod(held, deleted, noNote), ""},
		"labels as the pod dies":        {update, "status", admin, pod(held, deleted), pod(deleted), "update of labels"},
		"ephemeral container":           {update, "ephemeralcontainers", admin, pod(held), pod(held), "ephemeralcontainers is refused"},
		"controller's ephemeral":        {update, "ephemeralcontainers", controller, pod(held), pod(held), "ephemeralcontainers is refused"},
		"ephemeral container when free": {update, "ephemeralcontainers", admin, pod(), pod(otherImage), ""},
		"resize":                        {update, "resize", admin, pod(held), pod(held), "resize is refused"},

		"delete":                     {remove, "", admin, pod(held), nil, "delete is refused"},
		"delete by namespace":        {remove, "", "system:serviceaccount:kube-system:namespace-controller", pod(held), nil, "delete is refused"},
		"delete by collector":        {remove, "", "system:serviceaccount:kube-system:generic-garbage-collector", pod(held), nil, "delete is refused"},
		"delete by controller":       {remove, "", controller, pod(held), nil, ""},
		"delete when free":           {remove, "", admin, pod(), nil, ""},
		"kubelet begins":             {remove, "", node, pod(held), nil, "delete is refused"},
		"kubelet ends":               {remove, "", node, pod(held, deleted), nil, ""},
		"another kubelet ends":       {remove, "", node, pod(held, deleted, elsewhere), nil, "delete is refused"},
		"a kubelet without a name":   {remove, "", "system:node:", pod(held, deleted, unscheduled), nil, "delete is refused"},
		"admin ends":                 {remove, "", admin, pod(held, deleted), nil, "delete is refused"},
		"namesake of the controller": {remove, "", "ugallu-forensics", pod(held), nil, "delete is refused"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := frozen.New(nil, controller).Handle(t.Context(), request(t, tt.operation, tt.subresource, tt.user, versions{tt.before, tt.after}))
			check(t, got, tt.refused)
		})
	}
}

// versions of a pod; nil before a creation and after a deletion.
type versions struct{ before, after *corev1.Pod }

func request(t *testing.T, operation admissionv1.Operation, sub, user string, c versions) admission.Request {
	t.Helper()
	return admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Operation: operation, SubResource: sub, Namespace: "sandbox", Name: "victim",
		UserInfo:  authenticationv1.UserInfo{Username: user},
		OldObject: raw(t, c.before), Object: raw(t, c.after),
	}}
}

func check(t *testing.T, got admission.Response, refused string) {
	t.Helper()
	if got.Allowed != (refused == "") {
		t.Fatalf("allowed %t: %s", got.Allowed, got.Result.Message)
	}
	if refused == "" {
		return
	}
	if got.Result.Code != http.StatusForbidden || !strings.Contains(got.Result.Message, refused) {
		t.Fatalf("%d %q does not say %q", got.Result.Code, got.Result.Message, refused)
	}
	if strings.Contains(got.Result.Message, "is refused") {
		for _, want := range []string{"sandbox/victim", incident, v1alpha1.AnnotationAcknowledged + "=true"} {
			if !strings.Contains(got.Result.Message, want) {
				t.Errorf("%q does not name %s", got.Result.Message, want)
			}
		}
	}
}

func TestGuardLooksThePodUpWhenTheRequestDoesNotCarryIt(t *testing.T) {
	subresources := map[string]admissionv1.Operation{
		"exec": admissionv1.Connect, "attach": admissionv1.Connect, "portforward": admissionv1.Connect,
		"proxy": admissionv1.Connect, "eviction": admissionv1.Create,
	}
	tests := map[string]struct {
		pods    []client.Object
		refused bool
	}{
		"frozen": {pods: []client.Object{pod(held)}, refused: true},
		"free":   {pods: []client.Object{pod()}},
		"absent": {},
	}
	for sub, operation := range subresources {
		for name, tt := range tests {
			t.Run(sub+" "+name, func(t *testing.T) {
				reader := fake.NewClientBuilder().WithScheme(scheme(t)).WithObjects(tt.pods...).Build()
				req := request(t, operation, sub, controller, versions{nil, nil})
				refused := ""
				if tt.refused {
					refused = sub + " is refused"
				}
				check(t, frozen.New(reader, controller).Handle(t.Context(), req), refused)
			})
		}
	}
}

func TestGuardRefusesWhatItCannotJudge(t *testing.T) {
	broken := fake.NewClientBuilder().WithScheme(scheme(t)).WithInterceptorFuncs(interceptor.Funcs{
		Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
			return errors.New("connection refused")
		},
	}).Build()
	malformed := request(t, admissionv1.Update, "", admin, versions{pod(held), pod(held)})
	malformed.Object.Raw = []byte("{")
	tests := map[string]admission.Request{
		"API server gone": request(t, admissionv1.Connect, "exec", admin, versions{nil, nil}),
		"malformed":       malformed,
		"no old object":   request(t, admissionv1.Delete, "", admin, versions{nil, nil}),
	}
	for name, req := range tests {
		t.Run(name, func(t *testing.T) {
			got := frozen.New(broken, controller).Handle(t.Context(), req)
			if got.Allowed || got.Result.Code != http.StatusInternalServerError {
				t.Fatalf("allowed %t with code %d", got.Allowed, got.Result.Code)
			}
		})
	}
}

func scheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	return s
}
