package main

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	controllerconfig "sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/incident"
	"ugallu.io/forensics/controller/internal/options"
	"ugallu.io/forensics/controller/internal/policy"
	"ugallu.io/forensics/internal/apitest"
)

const tenant = "default"

// asked records what the API server is asked for about network policies.
type asked struct {
	mutex   sync.Mutex
	accepts []string
}

// recorded passes requests on.
type recorded struct {
	*asked
	next http.RoundTripper
}

func (r recorded) RoundTrip(request *http.Request) (*http.Response, error) {
	if strings.HasSuffix(request.URL.Path, "/networkpolicies") {
		r.mutex.Lock()
		r.accepts = append(r.accepts, request.Header.Get("Accept"))
		r.mutex.Unlock()
	}
	return r.next.RoundTrip(request)
}

// large has what a tenant may write into an object that carries one of our labels.
func large(name, label string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: tenant, Name: name, Finalizers: []string{"example.com/stays"},
		Labels:          map[string]string{label: "some-uid", "app": "any", "ugallu.io/another": "any"},
		Annotations:     map[string]string{"example.com/large": strings.Repeat("x", 200<<10)},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "any", UID: "any"}},
	}
}

// createLarge makes a pod and a policy of each kind, none of which is ours.
func createLarge(t *testing.T, c client.Client) {
	t.Helper()
	cilium := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"endpointSelector": map[string]any{}, "ingress": []any{}}}}
	cilium.SetGroupVersionKind(policy.Kind(v1alpha1.BackendCilium))
	meta := large("any", v1alpha1.LabelPodUID)
	cilium.SetNamespace(meta.Namespace)
	cilium.SetName(meta.Name)
	cilium.SetLabels(meta.Labels)
	cilium.SetAnnotations(meta.Annotations)
	cilium.SetFinalizers(meta.Finalizers)
	cilium.SetOwnerReferences(meta.OwnerReferences)
	for _, object := range []client.Object{
		&corev1.Pod{
			ObjectMeta: large("any", v1alpha1.LabelFrozen), Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "any", Image: "any"}}},
		},
		&networkingv1.NetworkPolicy{
			ObjectMeta: large("any", v1alpha1.LabelPodUID),
			Spec:       networkingv1.NetworkPolicySpec{Ingress: make([]networkingv1.NetworkPolicyIngressRule, 100_000)},
		},
		cilium,
	} {
		if err := c.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOfWhatTenantsLabelOnlyItsIdentityIsCached: whoever may edit a namespace may create any number of these.
func TestOfWhatTenantsLabelOnlyItsIdentityIsCached(t *testing.T) {
	server := apitest.Start(t, filepath.Join("internal", "policy", "testdata", "ciliumnetworkpolicies.yaml"))
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	direct, err := client.New(server, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	createLarge(t, direct)
	requests := &asked{}
	cached := watching(t, server, scheme, requests)
	for kind, label := range map[schema.GroupVersionKind]string{
		corev1.SchemeGroupVersion.WithKind("Pod"): v1alpha1.LabelFrozen,
		policy.Kind(v1alpha1.BackendCoreV1):       v1alpha1.LabelPodUID,
		policy.Kind(v1alpha1.BackendCilium):       v1alpha1.LabelPodUID,
	} {
		found := &metav1.PartialObjectMetadata{}
		found.SetGroupVersionKind(kind)
		if err := cached.Get(t.Context(), client.ObjectKey{Namespace: tenant, Name: "any"}, found); err != nil {
			t.Fatalf("%s is not cached: %v", kind.Kind, err)
		}
		if found.UID == "" || found.ResourceVersion == "" {
			t.Errorf("%s cannot be told from another one: %+v", kind.Kind, found)
		}
		want := metav1.ObjectMeta{
			Namespace: tenant, Name: "any", UID: found.UID, ResourceVersion: found.ResourceVersion, Labels: map[string]string{label: "some-uid"},
		}
		if diff := cmp.Diff(want, found.ObjectMeta); diff != "" {
			t.Errorf("%s: %s", kind.Kind, diff)
		}
	}
	requests.mutex.Lock()
	defer requests.mutex.Unlock()
	if len(requests.accepts) == 0 {
		t.Error("network policies are not watched")
	}
	for _, accept := range requests.accepts {
		if !strings.Contains(accept, "as=PartialObjectMetadata") {
			t.Errorf("whole network policies are asked for: %s", accept)
		}
	}
}

// watching starts the incident controller's watches and returns the client that reads what they cached.
func watching(t *testing.T, server *rest.Config, scheme *runtime.Scheme, requests *asked) client.Client {
	t.Helper()
	server = rest.CopyConfig(server)
	server.Wrap(func(next http.RoundTripper) http.RoundTripper { return recorded{requests, next} })
	mgr, err := ctrl.NewManager(server, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, Cache: cacheOptions(options.Options{}), Client: clientOptions(),
		// Another test of this process sets the controller up as well.
		Controller: controllerconfig.Controller{SkipNameValidation: ptr.To(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := incident.New(incident.Dependencies{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Recorder: &events.FakeRecorder{}, Clock: clock.RealClock{},
	})
	built, err := r.SetupWithManager(mgr)
	if err != nil {
		t.Fatal(err)
	}
	if err := (&ciliumWatch{cache: mgr.GetCache(), controller: built, toIncidents: r.OfPod}).watch(); err != nil {
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
	if !mgr.GetCache().WaitForCacheSync(t.Context()) {
		t.Fatal("the cache does not fill")
	}
	return mgr.GetClient()
}
