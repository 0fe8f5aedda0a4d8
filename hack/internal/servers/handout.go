package servers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/hack/internal/state"
)

// analystFile holds the analyst's credentials as the AWS tools read them.
const analystFile = "credentials"

// Handout writes into a folder all that a person outside the cluster needs to read and to verify the evidence: the
// trusted root, the attestor's public key and credentials that can only read.
func Handout(ctx context.Context, env state.Env, dir string) error {
	cluster, err := connect(env)
	if err != nil {
		return err
	}
	var trust corev1.ConfigMap
	if err := cluster.Get(ctx, client.ObjectKey{Namespace: systemNamespace, Name: trustConfigMap}, &trust); err != nil {
		return fmt.Errorf("get the trusted root: %w", err)
	}
	var analyst corev1.Secret
	if err := cluster.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "ugallu-analyst"}, &analyst); err != nil {
		return fmt.Errorf("get the analyst's credentials: %w", err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	files := map[string]string{
		trustedRootFile: trust.Data[trustedRootFile],
		attestorKeyFile: trust.Data[attestorKeyFile],
		analystFile: fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n",
			analyst.Data[accessKey], analyst.Data[secretKey]),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}
