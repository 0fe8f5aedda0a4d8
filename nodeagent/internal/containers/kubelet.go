package containers

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/nodeagent/internal/proc"
)

const (
	// kubeletName is the kubelet's as the kernel shows it.
	kubeletName = "kubelet"
	// kubepodsName is in the name of the folder that the kubelet makes for all pods, and of all slices in there.
	kubepodsName = "kubepods"
)

// Kubelet finds the node's kubelet. It remembers it, so that the next question costs three reads.
type Kubelet struct {
	// node is the node's pid namespace, and onNode how its cgroups are read.
	node   string
	onNode func(func(trees) error) error

	mutex   sync.Mutex
	process int
	started uint64
	cgroup  uint64
}

// NewKubelet returns one that has not looked yet.
func NewKubelet() *Kubelet { return &Kubelet{node: namespaceFile(1, "pid"), onNode: onNode} }

// Cgroup returns the id of the cgroup2 folder that the kubelet runs in, which its sockets are made in: the folder's handle.
// It is 0 when there is no kubelet, or more than one process that could be it: then a suspect may have named itself so.
// It is 0 as well when the kubelet is in the root of a mount: every process without a folder of its own is there.
func (k *Kubelet) Cgroup() (uint64, error) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if k.process != 0 && k.is(k.process) {
		if started, err := proc.Started(k.process); err == nil && started == k.started {
			return k.cgroup, nil
		}
	}
	k.process, k.started, k.cgroup = 0, 0, 0
	err := k.onNode(k.find)
	return k.cgroup, err
}

func (k *Kubelet) find(t trees) error {
	all, err := everyProcess()
	if err != nil {
		return err
	}
	var candidates []int
	folder := ""
	for _, process := range all {
		if !k.is(process) {
			continue
		}
		at, err := t.placeOf(strconv.Itoa(process))
		if proc.Over(err) {
			continue
		}
		if err != nil {
			return err
		}
		// What runs in a pod is in the folder of one, whatever it calls itself.
		if strings.Contains(at.unified, kubepodsName) || at.unified == "" {
			continue
		}
		candidates, folder = append(candidates, process), at.unified
	}
	// One in the root counts until here: without it another one, which a suspect may be, would be the only one.
	if len(candidates) != 1 || t.isRoot(folder) {
		return nil
	}
	return k.remember(candidates[0], folder)
}

// isRoot says whether a cgroup2 folder is a mount's own.
func (t trees) isRoot(folder string) bool {
	return slices.ContainsFunc(t.unified, func(m mount) bool { return path.Clean(m.point) == folder })
}

// remember keeps what is known of the kubelet.
func (k *Kubelet) remember(process int, folder string) error {
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, folder, 0)
	if err != nil {
		return fmt.Errorf("ask for the id of cgroup %s: %w", folder, err)
	}
	if handle.Size() != 8 {
		return fmt.Errorf("ask for the id of cgroup %s: a handle of %d bytes", folder, handle.Size())
	}
	started, err := proc.Started(process)
	if proc.Over(err) {
		return nil
	}
	k.process, k.started, k.cgroup = process, started, binary.NativeEndian.Uint64(handle.Bytes())
	return err
}

// is looks at the name and at the pid namespace, which must be the node's. A thread has a name of its own; the
// process's is that of its first thread.
func (k *Kubelet) is(process int) bool {
	name, err := os.ReadFile("/proc/" + strconv.Itoa(process) + "/comm")
	if err != nil || strings.TrimSpace(string(name)) != kubeletName {
		return false
	}
	own, ownErr := os.Readlink(namespaceFile(process, "pid"))
	node, nodeErr := os.Readlink(k.node)
	return errors.Join(ownErr, nodeErr) == nil && own == node
}
