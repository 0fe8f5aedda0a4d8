package order

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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

// protectedNamespaces hold what the node, the cluster and this project live on. A way to configure exceptions would be a
// way to stop the cluster with one object.
func protectedNamespaces() []string {
	return []string{"kube-system", v1alpha1.NamespaceSystem, v1alpha1.NamespacePrivileged}
}

// checkOrder refuses what can be refused without asking anybody.
func checkOrder(node string, spec v1alpha1.EventResponseSpec) error {
	switch {
	case spec.PodRef.NodeName != node:
		return refused{fmt.Sprintf("pod %s/%s is on node %s, this is %s", spec.PodRef.Namespace, spec.PodRef.Name, spec.PodRef.NodeName, node)}
	case !podUIDs.MatchString(spec.PodRef.UID):
		return refused{fmt.Sprintf("%q is not the uid of a pod", spec.PodRef.UID)}
	case slices.Contains(protectedNamespaces(), spec.PodRef.Namespace):
		return refused{fmt.Sprintf("namespace %s is protected: its pods are never contained", spec.PodRef.Namespace)}
	}
	return nil
}

// livePod reads the pod that an order names from the API server and refuses it when it is another, elsewhere, or
// protected. The agent does not rely on whoever gave the order to have looked.
func livePod(ctx context.Context, live client.Reader, node string, ref v1alpha1.PodRef) (*corev1.Pod, error) {
	pod := new(corev1.Pod)
	err := live.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, pod)
	if apierrors.IsNotFound(err) {
		return nil, refused{fmt.Sprintf("pod %s/%s does not exist", ref.Namespace, ref.Name)}
	}
	if err != nil {
		return nil, fmt.Errorf("read pod %s/%s: %w", ref.Namespace, ref.Name, err)
	}
	switch {
	case string(pod.UID) != ref.UID:
		return nil, refused{fmt.Sprintf("pod %s/%s has uid %s, the order names %s", ref.Namespace, ref.Name, pod.UID, ref.UID)}
	case pod.Spec.NodeName != node:
		return nil, refused{fmt.Sprintf("pod %s/%s is on node %q, this is %s", ref.Namespace, ref.Name, pod.Spec.NodeName, node)}
	case isStatic(pod):
		return nil, refused{fmt.Sprintf("pod %s/%s is a static pod: the node may depend on it", ref.Namespace, ref.Name)}
	}
	return pod, nil
}

func isStatic(pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[annotationMirror]
	return mirror
}
