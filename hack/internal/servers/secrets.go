package servers

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/hack/internal/state"
)

func connect(env state.Env) (client.Client, error) {
	config, err := clientcmd.BuildConfigFromFlags("", env.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", env.Kubeconfig, err)
	}
	connected, err := client.New(config, client.Options{})
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	return connected, nil
}

// ensureSecret returns the Secret's data, which is generated once in a cluster's life.
func ensureSecret(
	ctx context.Context, cluster client.Client, key client.ObjectKey, generate func() (map[string][]byte, error),
) (map[string][]byte, error) {
	var secret corev1.Secret
	err := cluster.Get(ctx, key, &secret)
	if err == nil {
		return secret.Data, nil
	}
	if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("get secret %s: %w", key, err)
	}
	secret = corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	if secret.Data, err = generate(); err != nil {
		return nil, fmt.Errorf("generate secret %s: %w", key, err)
	}
	if err := cluster.Create(ctx, &secret); err != nil {
		return nil, fmt.Errorf("create secret %s: %w", key, err)
	}
	return secret.Data, nil
}
