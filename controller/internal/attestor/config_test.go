package attestor_test

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// spoiled is a config that was changed, and what the API server says to it; nothing where it is accepted.
type spoiled struct {
	change func(*v1alpha1.AttestorConfigSpec)
	says   string
}

func spoiledConfigs() map[string]spoiled {
	engine := func() *v1alpha1.TransitConfig { return &v1alpha1.TransitConfig{Address: "https://bao:8200", Key: "k"} }
	return map[string]spoiled{
		"keyless": {func(*v1alpha1.AttestorConfigSpec) {}, ""},
		"transit": {func(s *v1alpha1.AttestorConfigSpec) {
			s.SigningModes[0], s.Fulcio, s.Transit = "openbao-transit", nil, engine()
		}, ""},
		"transit with a role": {func(s *v1alpha1.AttestorConfigSpec) {
			s.SigningModes[0], s.Transit = "openbao-transit", engine()
			s.Transit.KubernetesAuth = &v1alpha1.TransitKubernetesAuth{Role: "attestor"}
		}, ""},
		"http where it is allowed": {func(s *v1alpha1.AttestorConfigSpec) {
			s.Fulcio = &v1alpha1.FulcioConfig{URL: "http://fulcio", InsecureAllowHTTP: true}
		}, ""},
		"http": {func(s *v1alpha1.AttestorConfigSpec) {
			s.Fulcio.URL = "http://fulcio"
		}, "url must be https:// unless insecureAllowHTTP is true"},
		"another scheme": {func(s *v1alpha1.AttestorConfigSpec) {
			s.Fulcio = &v1alpha1.FulcioConfig{URL: "ftp://fulcio", InsecureAllowHTTP: true}
		}, "spec.fulcio.url"},
		"no authority": {func(s *v1alpha1.AttestorConfigSpec) {
			s.Fulcio = nil
		}, "fulcio is required for the signing mode fulcio-keyless"},
		"no engine": {func(s *v1alpha1.AttestorConfigSpec) {
			s.SigningModes[0] = "openbao-transit"
		}, "transit is required for the signing mode openbao-transit"},
		"both modes": {func(s *v1alpha1.AttestorConfigSpec) {
			s.SigningModes, s.Transit = append(s.SigningModes, "openbao-transit"), engine()
		}, ""},
		"both modes, the other first": {func(s *v1alpha1.AttestorConfigSpec) {
			s.SigningModes, s.Transit = []v1alpha1.SigningMode{"openbao-transit", "fulcio-keyless"}, engine()
		}, ""},
		"both modes, no engine": {func(s *v1alpha1.AttestorConfigSpec) {
			s.SigningModes = append(s.SigningModes, "openbao-transit")
		}, "transit is required for the signing mode openbao-transit"},
		"both modes, no authority": {func(s *v1alpha1.AttestorConfigSpec) {
			s.SigningModes, s.Fulcio, s.Transit = append(s.SigningModes, "openbao-transit"), nil, engine()
		}, "fulcio is required for the signing mode fulcio-keyless"},
		"a mode twice": {func(s *v1alpha1.AttestorConfigSpec) {
			s.SigningModes = append(s.SigningModes, "fulcio-keyless")
		}, "spec.signingModes[1]: Duplicate value"},
		"three modes": {func(s *v1alpha1.AttestorConfigSpec) {
			s.SigningModes, s.Transit = append(s.SigningModes, "openbao-transit", "x"), engine()
		}, "spec.signingModes: Too many: 3"},
		"a mode that is none": {func(s *v1alpha1.AttestorConfigSpec) {
			s.SigningModes = append(s.SigningModes, "x")
		}, "spec.signingModes[1]: Unsupported value"},
		"no mode": {func(s *v1alpha1.AttestorConfigSpec) {
			s.SigningModes = []v1alpha1.SigningMode{}
		}, "spec.signingModes"},
		"no role": {func(s *v1alpha1.AttestorConfigSpec) {
			s.Transit = engine()
			s.Transit.KubernetesAuth = &v1alpha1.TransitKubernetesAuth{}
		}, "spec.transit.kubernetesAuth.role"},
	}
}

func refusesConfig(t *testing.T, w *world) {
	for name, test := range spoiledConfigs() {
		config := &v1alpha1.AttestorConfig{
			ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.NamespaceSystem, Name: v1alpha1.SingletonName},
			Spec: v1alpha1.AttestorConfigSpec{
				SigningModes: []v1alpha1.SigningMode{v1alpha1.SigningFulcioKeyless},
				Fulcio:       &v1alpha1.FulcioConfig{URL: "https://fulcio"}, RekorURL: "https://rekor", TimestampURL: "https://tsa",
			},
		}
		test.change(&config.Spec)
		err := w.base.Create(t.Context(), config, client.DryRunAll)
		if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s: got %v, want %q", name, err, test.says)
		}
		if fulcio := config.Spec.Fulcio; err == nil && fulcio != nil && fulcio.Audience != "sigstore" {
			t.Errorf("%s: audience is %q unless said otherwise", name, fulcio.Audience)
		}
	}
}
