package certificate

import (
	"net/http"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
)

// narrowed is a manager whose configuration lists and watches one Secret only. The rotator would list every Secret of
// the namespace, and the account would need the right to read them all: the signing token and the store's
// credentials among them.
type narrowed struct {
	ctrl.Manager
	secret types.NamespacedName
}

// GetConfig returns a copy that adds the selector.
func (n narrowed) GetConfig() *rest.Config {
	config := rest.CopyConfig(n.Manager.GetConfig())
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return selecting{next: next, secret: n.secret}
	})
	return config
}

type selecting struct {
	next   http.RoundTripper
	secret types.NamespacedName
}

// RoundTrip adds the selector to lists and watches of Secrets.
func (s selecting) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodGet && req.URL.Path == "/api/v1/namespaces/"+s.secret.Namespace+"/secrets" {
		req = req.Clone(req.Context())
		query := req.URL.Query()
		query.Set("fieldSelector", fields.OneTermEqualSelector("metadata.name", s.secret.Name).String())
		req.URL.RawQuery = query.Encode()
	}
	return s.next.RoundTrip(req)
}
