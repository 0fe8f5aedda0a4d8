package attestor_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/attestor"
)

// cluster holds an AttestorConfig that works, and what it points to.
type cluster struct {
	client client.Client
	ready  *attestor.Readiness
	config *v1alpha1.AttestorConfig
	trust  *corev1.ConfigMap
	tokens string
	fulcio *fulcio
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{tokens: t.TempDir(), fulcio: startFulcio(t)}
	c.config = &v1alpha1.AttestorConfig{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.NamespaceSystem, Name: v1alpha1.SingletonName},
		Spec: v1alpha1.AttestorConfigSpec{
			SigningModes: []v1alpha1.SigningMode{v1alpha1.SigningFulcioKeyless},
			Fulcio:       &v1alpha1.FulcioConfig{URL: c.fulcio.url, Audience: "sigstore"},
			RekorURL:     "https://rekor", TimestampURL: "https://tsa", TrustedRootConfigMap: "ugallu-trusted-root",
		},
	}
	c.trust = &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.NamespaceSystem, Name: "ugallu-trusted-root"},
		Data:       map[string]string{"trusted_root.json": c.fulcio.trustedRoot(t), "attestor.identity": identity},
	}
	c.client = fake.NewClientBuilder().WithScheme(newScheme(t)).WithStatusSubresource(c.config).Build()
	c.ready = &attestor.Readiness{Client: c.client, Clock: clock.RealClock{}, Configuration: &attestor.Configuration{
		Reader: c.client, Direct: c.client, TokenFile: filepath.Join(c.tokens, "transit"), IdentityDir: c.tokens,
	}}
	c.mount(t, "sigstore", token(t, "sigstore"))
	return c
}

func (c *cluster) mount(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.tokens, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// check reconciles and returns the condition, with how long it is until the next look.
func (c *cluster) check(t *testing.T) (metav1.Condition, time.Duration) {
	t.Helper()
	request := ctrl.Request{NamespacedName: client.ObjectKeyFromObject(c.config)}
	result, err := c.ready.Reconcile(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	var config v1alpha1.AttestorConfig
	if err := c.client.Get(t.Context(), request.NamespacedName, &config); err != nil {
		t.Fatal(err)
	}
	ready := meta.FindStatusCondition(config.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil {
		t.Fatal("no condition Ready")
	}
	return *ready, result.RequeueAfter
}

func (c *cluster) create(t *testing.T) {
	t.Helper()
	for _, object := range []client.Object{c.config, c.trust} {
		if err := c.client.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
}

type refusal struct {
	spoil  func(t *testing.T, c *cluster)
	reason string
	says   []string // of what to repair
}

func TestReadyIsFalseUntilItCouldSign(t *testing.T) {
	for name, test := range refusals() {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			test.spoil(t, c)
			c.create(t)
			ready, after := c.check(t)
			if ready.Status != metav1.ConditionFalse || ready.Reason != test.reason || after != 5*time.Second {
				t.Errorf("got %s %s after %s: %s", ready.Status, ready.Reason, after, ready.Message)
			}
			for _, part := range test.says {
				if !strings.Contains(ready.Message, part) {
					t.Errorf("message lacks %q: %s", part, ready.Message)
				}
			}
			c.demandNotAllSign(t)
		})
	}
}

// demandNotAllSign wants that not every mode that is listed gives a signature.
func (c *cluster) demandNotAllSign(t *testing.T) {
	t.Helper()
	modes, err := c.ready.Configuration.Modes(t.Context())
	for _, mode := range modes {
		notary, failed := c.ready.Configuration.Notary(t.Context(), mode)
		if failed == nil {
			_, _, failed = notary.Sign(t.Context(), []byte("{}"))
		}
		err = errors.Join(err, failed)
	}
	if err == nil {
		t.Errorf("all of %q signed nevertheless", modes)
	}
}

// TestAModeThatIsNotListedFinishesWhatItBegan as long as its servers are configured.
func TestAModeThatIsNotListedFinishesWhatItBegan(t *testing.T) {
	c := newCluster(t)
	c.config.Spec.SigningModes = []v1alpha1.SigningMode{"openbao-transit"}
	c.config.Spec.Transit = &v1alpha1.TransitConfig{Address: "http://127.0.0.1:1", Key: "k", Mount: "transit"}
	c.create(t)
	sign := func() error {
		notary, err := c.ready.Configuration.Notary(t.Context(), v1alpha1.SigningFulcioKeyless)
		if err == nil {
			_, _, err = notary.Sign(t.Context(), []byte("{}"))
		}
		return err
	}
	if err := sign(); err != nil {
		t.Errorf("not listed: %v", err)
	}
	c.config.Spec.Fulcio = nil
	c.update(t, c.config)
	if err := sign(); !errors.Is(err, attestor.ErrModeWithdrawn) {
		t.Errorf("not configured: %v", err)
	}
}

func refusals() map[string]refusal {
	invalid, untrusted, away := v1alpha1.ReasonConfigInvalid, v1alpha1.ReasonKeyNotTrusted, v1alpha1.ReasonSignerUnavailable
	spec := func(change func(*v1alpha1.AttestorConfigSpec)) func(*testing.T, *cluster) {
		return func(_ *testing.T, c *cluster) { change(&c.config.Spec) }
	}
	return map[string]refusal{
		"no authority named": {spec(func(s *v1alpha1.AttestorConfigSpec) { s.Fulcio = nil }), invalid, []string{"spec.fulcio", "url"}},
		"a mode twice": {spec(func(s *v1alpha1.AttestorConfigSpec) {
			s.SigningModes = []v1alpha1.SigningMode{"fulcio-keyless", "fulcio-keyless"}
		}), invalid, []string{"spec.signingModes", "each once"}},
		"three modes": {spec(func(s *v1alpha1.AttestorConfigSpec) {
			s.SigningModes = []v1alpha1.SigningMode{"fulcio-keyless", "openbao-transit", "x"}
		}), invalid, []string{"spec.signingModes", "each once"}},
		"the second of two modes without an engine": {spec(func(s *v1alpha1.AttestorConfigSpec) {
			s.SigningModes = []v1alpha1.SigningMode{"fulcio-keyless", "openbao-transit"}
		}), invalid, []string{"spec.transit"}},
		"the second of two modes without its token": {spec(func(s *v1alpha1.AttestorConfigSpec) {
			s.SigningModes = []v1alpha1.SigningMode{"fulcio-keyless", "openbao-transit"}
			s.Transit = &v1alpha1.TransitConfig{Address: "http://127.0.0.1:1", Key: "k", Mount: "transit"}
		}), invalid, []string{"openbao-transit: ", "/transit: no such file"}},
		"both of two modes": {func(_ *testing.T, c *cluster) {
			c.fulcio.close()
			c.config.Spec.SigningModes = []v1alpha1.SigningMode{"fulcio-keyless", "openbao-transit"}
			c.config.Spec.Transit = &v1alpha1.TransitConfig{Address: "http://127.0.0.1:1", Key: "k", Mount: "transit"}
		}, away, []string{"fulcio-keyless: ", "connection refused", "openbao-transit: ", "/transit: no such file"}},
		"no mode":          {spec(func(s *v1alpha1.AttestorConfigSpec) { s.SigningModes = nil }), invalid, []string{"spec.signingModes"}},
		"unknown mode":     {spec(func(s *v1alpha1.AttestorConfigSpec) { s.SigningModes = []v1alpha1.SigningMode{"x"} }), invalid, []string{`"x"`}},
		"no engine named":  {spec(func(s *v1alpha1.AttestorConfigSpec) { s.SigningModes[0] = "openbao-transit" }), invalid, []string{"spec.transit"}},
		"CA bundle broken": {spec(func(s *v1alpha1.AttestorConfigSpec) { s.CABundle = "x" }), invalid, []string{"CA bundle"}},
		"audience that the token has not": {
			spec(func(s *v1alpha1.AttestorConfigSpec) { s.Fulcio.Audience = "other" }), invalid, []string{`"sigstore"`, `"other"`, "Deployment mounts"},
		},
		"no token": {func(t *testing.T, c *cluster) {
			c.ready.Configuration.IdentityDir = t.TempDir()
		}, invalid, []string{"/sigstore: no such file", "Deployment mounts"}},
		"no engine's token": {func(_ *testing.T, c *cluster) {
			c.config.Spec.SigningModes[0] = "openbao-transit"
			c.config.Spec.Transit = &v1alpha1.TransitConfig{Address: "http://127.0.0.1:1", Key: "k", Mount: "transit"}
		}, invalid, []string{"/transit: no such file"}},
		"no token to log in with": {func(_ *testing.T, c *cluster) {
			c.config.Spec.SigningModes[0] = "openbao-transit"
			c.config.Spec.Transit = &v1alpha1.TransitConfig{
				Address: "http://127.0.0.1:1", Key: "k", Mount: "transit", KubernetesAuth: &v1alpha1.TransitKubernetesAuth{Role: "r", Mount: "m"},
			}
		}, invalid, []string{"/openbao: no such file"}},
		"token refused":   {func(_ *testing.T, c *cluster) { c.fulcio.status = http.StatusBadRequest }, invalid, []string{"400", "client-id", c400}},
		"authority fails": {func(_ *testing.T, c *cluster) { c.fulcio.status = http.StatusInternalServerError }, away, []string{"500"}},
		"authority away":  {func(_ *testing.T, c *cluster) { c.fulcio.close() }, away, []string{"connection refused"}},
		"clock":           {func(_ *testing.T, c *cluster) { c.fulcio.ahead = time.Hour }, invalid, []string{"clocks"}},
		"server's CA unknown": {func(t *testing.T, c *cluster) {
			server := httptest.NewTLSServer(http.NotFoundHandler())
			t.Cleanup(server.Close)
			c.config.Spec.Fulcio.URL = server.URL
		}, invalid, []string{"spec.caBundle"}},
		"authority not in the root": {func(t *testing.T, c *cluster) {
			c.trust.Data["trusted_root.json"] = startFulcio(t).trustedRoot(t)
		}, untrusted, []string{"authority of the trusted root", "trusted-root ConfigMap"}},
		"identity not trusted": {func(_ *testing.T, c *cluster) {
			c.trust.Data["attestor.identity"] = strings.ReplaceAll(identity, "ugallu-attestor", "other")
		}, untrusted, []string{"ugallu-attestor", "<name>.identity"}},
		"nobody trusted":   {func(_ *testing.T, c *cluster) { delete(c.trust.Data, "attestor.identity") }, invalid, []string{"no trusted identity"}},
		"no trusted root":  {func(_ *testing.T, c *cluster) { delete(c.trust.Data, "trusted_root.json") }, invalid, []string{"parse trusted root"}},
		"ConfigMap absent": {func(_ *testing.T, c *cluster) { c.trust.Name = "other" }, invalid, []string{"ugallu-trusted-root", "not found"}},
	}
}

// TestReadyFollowsEveryChange repairs and spoils each part while one process runs.
func TestReadyFollowsEveryChange(t *testing.T) {
	c := newCluster(t)
	c.create(t)
	expect := func(after string, want metav1.ConditionStatus) {
		t.Helper()
		if ready, _ := c.check(t); ready.Status != want {
			t.Errorf("%s: %s: %s", after, ready.Status, ready.Message)
		}
	}
	ready, after := c.check(t)
	if ready.Status != metav1.ConditionTrue || !strings.Contains(ready.Message, "serviceaccounts/ugallu-attestor") || after != time.Minute {
		t.Fatalf("got %s after %s: %s", ready.Status, after, ready.Message)
	}
	good := c.trust.Data["attestor.identity"]
	c.trust.Data["attestor.identity"] = strings.ReplaceAll(good, "ugallu-attestor", "other")
	c.update(t, c.trust)
	expect("ConfigMap names another identity", metav1.ConditionFalse)
	c.trust.Data["attestor.identity"] = good
	c.update(t, c.trust)
	expect("ConfigMap is as before", metav1.ConditionTrue)
	c.mount(t, "sigstore", token(t, "https://kubernetes.default.svc"))
	expect("token for the API server", metav1.ConditionFalse)
	c.mount(t, "sigstore", token(t, "sigstore"))
	expect("token is as before", metav1.ConditionTrue)
	second := startFulcio(t)
	c.setURL(t, second.url)
	expect("another authority", metav1.ConditionFalse)
	c.setURL(t, c.fulcio.url)
	expect("authority is as before", metav1.ConditionTrue)
}

func (c *cluster) setURL(t *testing.T, url string) {
	t.Helper()
	var config v1alpha1.AttestorConfig
	if err := c.client.Get(t.Context(), client.ObjectKeyFromObject(c.config), &config); err != nil {
		t.Fatal(err)
	}
	config.Spec.Fulcio.URL = url
	c.update(t, &config)
}

func (c *cluster) update(t *testing.T, object client.Object) {
	t.Helper()
	if err := c.client.Update(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

func encode(t *testing.T, value any) []byte {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
