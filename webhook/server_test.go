package main

import (
	"bytes"
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/apitest"
)

const (
	controller = "system:serviceaccount:ugallu-system:ugallu-forensics"
	responder  = "system:serviceaccount:ugallu-system:ugallu-responder"
	lead       = "system:serviceaccount:soc:lead"
	stranger   = "system:serviceaccount:default:default"
	kubelet    = "system:node:worker"
	admin      = "kubernetes-admin"
	incident   = "0b7a0e0c-1f4a-4bcd-9c39-2f7d5c1d1111"
)

func manifest(parts ...string) string {
	return filepath.Join(append([]string{"..", "manifests"}, parts...)...)
}

// cluster is an API server that calls our handlers, and clients of any account for it.
type cluster struct {
	config *rest.Config
	calls  *calls
}

// calls records how long each call of the API server took us.
type calls struct {
	mutex sync.Mutex
	took  []time.Duration
}

func (c *calls) take() []time.Duration {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	took := c.took
	c.took = nil
	return took
}

// measured is a server whose handlers record their calls.
type measured struct {
	webhook.Server
	calls *calls
}

func (m measured) Register(path string, hook http.Handler) {
	m.Server.Register(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		hook.ServeHTTP(w, r)
		m.calls.mutex.Lock()
		defer m.calls.mutex.Unlock()
		m.calls.took = append(m.calls.took, time.Since(begin))
	}))
}

func key() []byte { return bytes.Repeat([]byte{7}, 32) }

func startCluster(tb testing.TB) cluster {
	tb.Helper()
	env := &envtest.Environment{
		CRDDirectoryPaths:     []string{manifest("crds")},
		ErrorIfCRDPathMissing: true,
		WebhookInstallOptions: envtest.WebhookInstallOptions{Paths: []string{manifest("base", "admission.yaml")}},
	}
	c := cluster{config: apitest.Run(tb, env), calls: &calls{}}
	install := env.WebhookInstallOptions
	server := webhook.NewServer(webhook.Options{Host: install.LocalServingHost, Port: install.LocalServingPort, CertDir: install.LocalServingCertDir})
	register(measured{Server: server, calls: c.calls}, c.as(tb, admin), func(context.Context) ([]byte, error) { return key(), nil }, controller)
	serveUntilEnd(tb, server)
	c.awaitAsked(tb)
	return c
}

// awaitAsked returns once the API server asks us: it takes up a configuration, all of its webhooks at once, some time after
// the configuration can be read.
func (c cluster) awaitAsked(tb testing.TB) {
	tb.Helper()
	acknowledged := detection("asked")
	acknowledged.Annotations = map[string]string{v1alpha1.AnnotationAcknowledged: "true"}
	for hook, refused := range map[string]*v1alpha1.SecurityEvent{
		"acknowledgements.ugallu.io": acknowledged,
		"security-events.ugallu.io":  forensic("asked", &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{UID: incident}}, "trigger"),
	} {
		waitFor(tb, "a refusal by "+hook, func() bool {
			err := c.as(tb, admin).Create(tb.Context(), refused.DeepCopy(), client.DryRunAll)
			asked := apierrors.IsForbidden(err) && strings.Contains(err.Error(), hook)
			if !asked {
				tb.Logf("%s does not refuse yet: %v", hook, err)
			}
			return asked
		})
	}
	c.calls.take()
}

func serveUntilEnd(tb testing.TB, server webhook.Server) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Start(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Error(err)
		}
	})
	waitFor(tb, "the webhook server", func() bool { return server.StartedChecker()(nil) == nil })
}

func waitFor(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	for range 600 {
		if done() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	tb.Fatalf("%s: not within a minute", what)
}

// identity is a configuration of the account. It may do everything, so that only admission is in its way.
func (c cluster) identity(user string) *rest.Config {
	config := rest.CopyConfig(c.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:masters", "system:authenticated"}}
	return config
}

func (c cluster) as(tb testing.TB, user string) client.Client {
	tb.Helper()
	made, err := client.New(c.identity(user), client.Options{Scheme: scheme(tb)})
	if err != nil {
		tb.Fatal(err)
	}
	return made
}

func (c cluster) core(tb testing.TB, user string) kubernetes.Interface {
	tb.Helper()
	made, err := kubernetes.NewForConfig(c.identity(user))
	if err != nil {
		tb.Fatal(err)
	}
	return made
}

func scheme(tb testing.TB) *runtime.Scheme {
	tb.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			tb.Fatal(err)
		}
	}
	return s
}

// pod makes one, and freezes it as the controller does.
func (c cluster) pod(tb testing.TB, name string, frozen bool) *corev1.Pod {
	tb.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{NodeName: "worker", Containers: []corev1.Container{{
			Name: "web", Image: "nginx",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2m")}},
		}}},
	}
	if err := c.as(tb, admin).Create(tb.Context(), p); err != nil {
		tb.Fatal(err)
	}
	if frozen {
		if err := c.as(tb, controller).Patch(tb.Context(), p, freeze()); err != nil {
			tb.Fatal(err)
		}
	}
	return p
}

func freeze() client.Patch {
	return client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"`+v1alpha1.LabelFrozen+`":"`+incident+`"}}}`))
}
