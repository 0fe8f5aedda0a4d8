package podfiles

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// ErrBadName is returned by Find for a pod whose namespace, name or uid could lead to another folder than its own.
var ErrBadName = errors.New("is not a name that a pod can have")

// Folders of a node as this process sees them.
const (
	DefaultKubelet = "/var/lib/kubelet"
	DefaultLogs    = "/var/log/pods"
	// DefaultNode lists the node's own mounts.
	DefaultNode = "/proc/1/mountinfo"
)

// Roots are where to look. The zero value stands for the defaults.
type Roots struct {
	// Kubelet and Logs are folders of root's, whose content the suspect may have made.
	Kubelet, Logs string
	// Node is the list of mounts of the node's own mount namespace: what is in there is not the pod's alone.
	Node string
	// Kept is the folder of the Keeper, when that is in the node's mount namespace: mounts below it are not the node's own.
	Kept string
}

func (r Roots) withDefaults() Roots {
	if r.Kubelet == "" {
		r.Kubelet = DefaultKubelet
	}
	if r.Logs == "" {
		r.Logs = DefaultLogs
	}
	if r.Node == "" {
		r.Node = DefaultNode
	}
	return r
}

// Pod is whose files are looked for.
type Pod struct {
	Namespace, Name, UID string
	// Processes of the pod, in this process's pid namespace. Without any there is no /dev/shm to be found.
	Processes []int
	// Volumes of the pod's spec; nil when the pod is gone. What has no folder on the node, a hostPath for one, is only known
	// from here.
	Volumes []corev1.Volume
}

var uidShape = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,62}$`)

func (p Pod) check() error {
	switch {
	case !uidShape.MatchString(p.UID):
		return fmt.Errorf("uid %q %w", p.UID, ErrBadName)
	case len(validation.IsDNS1123Label(p.Namespace)) > 0:
		return fmt.Errorf("namespace %q %w", p.Namespace, ErrBadName)
	case len(validation.IsDNS1123Subdomain(p.Name)) > 0:
		return fmt.Errorf("name %q %w", p.Name, ErrBadName)
	}
	return nil
}

// folder is the kubelet's folder of the pod.
func (p Pod) folder(r Roots) string { return filepath.Join(r.Kubelet, "pods", p.UID) }

// logs is the folder with the logs of its containers.
func (p Pod) logs(r Roots) string {
	return filepath.Join(r.Logs, strings.Join([]string{p.Namespace, p.Name, p.UID}, "_"))
}
