package certificate

import (
	"fmt"

	"github.com/open-policy-agent/cert-controller/pkg/rotator"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	"ugallu.io/forensics/api/v1alpha1"
)

// +kubebuilder:rbac:groups="",resources=secrets,resourceNames=ugallu-webhook-certificate,namespace=ugallu-system,verbs=get;list;watch;update
// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=validatingwebhookconfigurations;mutatingwebhookconfigurations,verbs=list;watch
// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=validatingwebhookconfigurations;mutatingwebhookconfigurations,resourceNames=ugallu-webhook,verbs=get;update

// Names that the manifests share with this program.
const (
	// SecretName of the CA and the serving certificate. The Secret exists, empty, before the program starts.
	SecretName = "ugallu-webhook-certificate" // #nosec G101 -- the name of the Secret, not its content
	// ConfigurationName of the ValidatingWebhookConfiguration and of the MutatingWebhookConfiguration.
	ConfigurationName = "ugallu-webhook"
	serviceName       = "ugallu-webhook"
	organization      = "ugallu"
)

// Add issues the certificate, writes it to the folder and puts its CA into the webhook configurations, now and
// whenever it is renewed. The channel is closed once all three are done.
func Add(mgr ctrl.Manager, folder string) (<-chan struct{}, error) {
	secret := types.NamespacedName{Namespace: v1alpha1.NamespaceSystem, Name: SecretName}
	if err := addWriter(mgr, secret, folder); err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	host := serviceName + "." + v1alpha1.NamespaceSystem + ".svc"
	err := rotator.AddRotator(narrowed{Manager: mgr, secret: secret}, &rotator.CertRotator{
		SecretKey:      secret,
		CertDir:        folder,
		CAName:         serviceName + "-ca",
		CAOrganization: organization,
		DNSName:        host,
		ExtraDNSNames:  []string{host + ".cluster.local"},
		IsReady:        ready,
		FieldOwner:     serviceName,
		Webhooks: []rotator.WebhookInfo{
			{Name: ConfigurationName, Type: rotator.Validating},
			{Name: ConfigurationName, Type: rotator.Mutating},
		},
		// The API server is told the new CA only once this replica can serve a certificate of it.
		EnableReadinessCheck: true,
	})
	if err != nil {
		return nil, fmt.Errorf("set up certificate rotation: %w", err)
	}
	return ready, nil
}
