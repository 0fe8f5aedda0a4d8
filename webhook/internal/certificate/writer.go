package certificate

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const ownerOnly = 0o600

// writer copies the key pair from the Secret into the folder. A mounted Secret would do the same, up to a minute and a
// half later, which is when the kubelet next looks.
type writer struct {
	reader client.Reader
	secret types.NamespacedName
	folder string
}

func addWriter(mgr ctrl.Manager, secret types.NamespacedName, folder string) error {
	w := &writer{reader: mgr.GetClient(), secret: secret, folder: folder}
	isSecret := predicate.NewPredicateFuncs(func(object client.Object) bool {
		return client.ObjectKeyFromObject(object) == secret
	})
	err := ctrl.NewControllerManagedBy(mgr).Named("certificate").
		For(&corev1.Secret{}, builder.WithPredicates(isSecret)).
		WithOptions(controller.Options{NeedLeaderElection: ptr.To(false)}).
		Complete(w)
	if err != nil {
		return fmt.Errorf("set up certificate writer: %w", err)
	}
	return nil
}

// Reconcile writes the pair, the key first: whoever sees the certificate finds its key.
func (w *writer) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	var secret corev1.Secret
	err := w.reader.Get(ctx, w.secret, &secret)
	if apierrors.IsNotFound(err) {
		return reconcile.Result{}, nil // it will be back, with another reconcile
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("read certificate %s: %w", w.secret, err)
	}
	for _, name := range []string{corev1.TLSPrivateKeyKey, corev1.TLSCertKey} {
		if len(secret.Data[name]) == 0 {
			return reconcile.Result{}, nil // not issued yet
		}
		if err := replace(filepath.Join(w.folder, name), secret.Data[name]); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{}, nil
}

// replace renames a complete file into place, so that no reader sees half of one.
func replace(path string, content []byte) error {
	next := path + ".next"
	if err := os.WriteFile(next, content, ownerOnly); err != nil {
		return fmt.Errorf("write %s: %w", next, err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}
