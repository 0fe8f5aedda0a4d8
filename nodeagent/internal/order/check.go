package order

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// annotationMirror is the kubelet's on the API server's image of a static pod. It cannot be added to a pod that exists,
// and the kubelet does not run a pod that was created with it. Its others prove nothing: any owner of a pod may set them.
const annotationMirror = "kubernetes.io/config.mirror"

// podUIDs are what the API server and the kubelet give to pods. A uid becomes part of paths and filters.
var podUIDs = regexp.MustCompile(`^[0-9a-f-]{32,36}$`)

// refused is the error of an order that this agent does not carry out, whoever gave it.
type refused struct{ why string }

func (r refused) Error() string { return r.why }

// protected is the refusal of a pod that is never contained. Its first word is the reason that the controller counts.
func protected(format string, args ...any) refused {
	return refused{"protected_pod: " + fmt.Sprintf(format, args...)}
}

// ours are the namespaces that the cluster and this project live on. A way to configure exceptions would be a way to
// stop the cluster with one object. Whole names count: whoever may make namespaces could give one of their own a prefix.
func ours(namespace string) bool {
	return namespace == metav1.NamespaceSystem || namespace == v1alpha1.NamespaceSystem ||
		namespace == v1alpha1.NamespacePrivileged
}

// checkOrder refuses what can be refused without asking anybody.
func checkOrder(node string, spec v1alpha1.EventResponseSpec) error {
	switch {
	case spec.PodRef.NodeName != node:
		return refused{fmt.Sprintf("pod %s/%s is on node %s, this is %s", spec.PodRef.Namespace, spec.PodRef.Name, spec.PodRef.NodeName, node)}
	case !podUIDs.MatchString(spec.PodRef.UID):
		return refused{fmt.Sprintf("%q is not the uid of a pod", spec.PodRef.UID)}
	case ours(spec.PodRef.Namespace):
		return protected("pods of namespace %s are never contained", spec.PodRef.Namespace)
	}
	return nil
}

// livePod reads the pod that an order names from the API server and refuses it when it is another, elsewhere, or
// protected. The agent does not rely on whoever gave the order to have looked. An error that is no refusal says that it
// cannot tell, and the order is repeated.
func livePod(ctx context.Context, live client.Reader, node string, ref v1alpha1.PodRef) (*corev1.Pod, error) {
	pod := new(corev1.Pod)
	var namespaces []string
	var podErr, configErr error
	// Side by side: while the API server answers, the pod sends.
	var group errgroup.Group
	group.Go(func() error {
		podErr = live.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, pod)
		return nil
	})
	group.Go(func() error {
		namespaces, configErr = configured(ctx, live)
		return nil
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if apierrors.IsNotFound(podErr) {
		return nil, refused{fmt.Sprintf("pod %s/%s does not exist", ref.Namespace, ref.Name)}
	}
	if podErr != nil {
		podErr = fmt.Errorf("read pod %s/%s: %w", ref.Namespace, ref.Name, podErr)
	}
	if err := errors.Join(podErr, configErr); err != nil {
		return nil, err
	}
	switch {
	case string(pod.UID) != ref.UID:
		return nil, refused{fmt.Sprintf("pod %s/%s has uid %s, the order names %s", ref.Namespace, ref.Name, pod.UID, ref.UID)}
	case pod.Spec.NodeName != node:
		return nil, refused{fmt.Sprintf("pod %s/%s is on node %q, this is %s", ref.Namespace, ref.Name, pod.Spec.NodeName, node)}
	case isStatic(pod):
		return nil, protected("pod %s/%s is static: the node may depend on it", ref.Namespace, ref.Name)
	case slices.Contains(namespaces, ref.Namespace):
		return nil, protected("namespace %s is in ForensicsConfig spec.trigger.protectedNamespaces", ref.Namespace)
	}
	return pod, nil
}

// configured are the namespaces that the ForensicsConfig protects. Without one nothing is protected beyond what always is.
func configured(ctx context.Context, live client.Reader) ([]string, error) {
	var config v1alpha1.ForensicsConfig
	err := live.Get(ctx, client.ObjectKey{Name: v1alpha1.SingletonName}, &config)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read ForensicsConfig %s for its protected namespaces: %w", v1alpha1.SingletonName, err)
	}
	return config.Spec.Trigger.ProtectedNamespaces, nil
}

func isStatic(pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[annotationMirror]
	return mirror
}
