package stamp

import (
	"context"
	"crypto/rand"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// Where the key lies: a Secret in ugallu-system that the webhook and the controller may read, and nobody else.
const (
	SecretName  = "ugallu-acknowledgement-key" // #nosec G101 -- the name of the Secret, not its content
	SecretKey   = "key"
	minKeyBytes = 32
)

// Key reads the key. With create it makes a random one where there is none; two creators agree on the first.
func Key(ctx context.Context, c client.Client, create bool) ([]byte, error) {
	name := client.ObjectKey{Namespace: v1alpha1.NamespaceSystem, Name: SecretName}
	var secret corev1.Secret
	err := c.Get(ctx, name, &secret)
	if apierrors.IsNotFound(err) && create {
		if err := createKey(ctx, c); err != nil {
			return nil, err
		}
		err = c.Get(ctx, name, &secret)
	}
	if err != nil {
		return nil, fmt.Errorf("read acknowledgement key: %w", err)
	}
	key := secret.Data[SecretKey]
	if len(key) < minKeyBytes {
		return nil, fmt.Errorf("secret %s: %q has %d bytes, needs %d", name, SecretKey, len(key), minKeyBytes)
	}
	return key, nil
}

func createKey(ctx context.Context, c client.Client) error {
	key := make([]byte, minKeyBytes)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("make acknowledgement key: %w", err)
	}
	immutable := true
	err := c.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.NamespaceSystem, Name: SecretName},
		Data:       map[string][]byte{SecretKey: key},
		Immutable:  &immutable,
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create acknowledgement key: %w", err)
	}
	return nil
}
