package containers

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/nodeagent/internal/proc"
)

// maxNested is how many levels of pid namespaces the kernel allows (MAX_PID_NS_LEVEL).
const maxNested = 32

// members tells a pod's processes from all others.
type members struct {
	// node is the pid namespace of process 1.
	node string
	// own are the pid namespaces of the pod's first processes that are not the node's.
	own map[string]bool
	// sandboxes are those of own that the sandboxes' processes are in, which pauses names.
	sandboxes map[string]bool
	pauses    map[int]bool
	// foreign are pid namespaces that were seen not to be below one of own.
	foreign map[string]bool
	// shared says that a container or sandbox is in the node's pid namespace. Then these two tell as well:
	shared bool
	// borrowed are the ipc and uts namespaces of the sandbox that are not the node's.
	borrowed map[string]bool
	// descendants are processes that the pod's containers started, with their start times.
	descendants map[int]uint64
	// pins keep the namespaces alive while they are compared: the number of one that ends is given to the next.
	pins []*os.File
}

// membersOf collects what tells the pod's processes. The caller closes it.
func (p *Pod) membersOf(t trees) (m *members, err error) {
	m = &members{
		own: map[string]bool{}, foreign: map[string]bool{}, borrowed: map[string]bool{},
		sandboxes: map[string]bool{}, pauses: map[int]bool{},
	}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	if m.node, err = m.pin(1, "pid"); err != nil {
		return m, err
	}
	for _, container := range p.running() {
		if err := m.first(*container, "pid", m.own); err != nil {
			return m, err
		}
	}
	for _, sandbox := range p.Sandboxes {
		if err := m.first(sandbox, "pid", m.sandboxes); err != nil {
			return m, err
		}
		m.pauses[sandbox.Process] = true
	}
	m.shared = m.own[m.node]
	delete(m.own, m.node)
	delete(m.sandboxes, m.node)
	if !m.shared {
		return m, nil
	}
	for _, kind := range []string{"ipc", "uts"} {
		for _, sandbox := range p.Sandboxes {
			if err := m.first(sandbox, kind, m.borrowed); err != nil {
				return m, err
			}
		}
		nodes, err := m.pin(1, kind)
		if err != nil {
			return m, err
		}
		delete(m.borrowed, nodes)
	}
	m.descendants, err = p.descendants(t)
	return m, err
}

func (m *members) close() {
	for _, file := range m.pins {
		_ = file.Close()
	}
}

// first adds a namespace of a container's first process, unless that is over and another process has its id.
func (m *members) first(container Container, kind string, into map[string]bool) error {
	if container.Process == 0 {
		return nil
	}
	name, err := m.pin(container.Process, kind)
	if err == nil {
		var started uint64
		started, err = proc.Started(container.Process)
		if err == nil && started == container.StartTime {
			into[name] = true
		}
	}
	if proc.Over(err) {
		return nil
	}
	return err
}

// pin opens a namespace of a process and returns its name, as the link in /proc shows it.
func (m *members) pin(process int, kind string) (string, error) {
	file, err := os.Open(namespaceFile(process, kind))
	if err != nil {
		return "", fmt.Errorf("open the %s namespace of process %d: %w", kind, process, err)
	}
	m.pins = append(m.pins, file)
	return nameOf(file, kind)
}

func nameOf(file *os.File, kind string) (string, error) {
	var found unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &found); err != nil {
		return "", fmt.Errorf("look at %s: %w", file.Name(), err)
	}
	return kind + ":[" + strconv.FormatUint(found.Ino, 10) + "]", nil
}

func namespaceFile(process int, kind string) string {
	return "/proc/" + strconv.Itoa(process) + "/ns/" + kind
}

// hold says whether the process is the pod's. A process that is over is nobody's.
func (m *members) hold(process int) (bool, error) {
	name, err := readNamespace(process, "pid")
	if err != nil {
		return false, err
	}
	if m.own[name] {
		return true, nil
	}
	if name != m.node && !m.foreign[name] {
		below, err := m.below(process)
		if below || err != nil {
			return below, err
		}
		m.foreign[name] = true
	}
	if !m.shared {
		return false, nil
	}
	if started, found := m.descendants[process]; found {
		now, err := proc.Started(process)
		if err != nil || now == started {
			return err == nil, err
		}
	}
	for _, kind := range []string{"ipc", "uts"} {
		name, err := readNamespace(process, kind)
		if m.borrowed[name] || err != nil {
			return err == nil, err
		}
	}
	return false, nil
}

// joined says whether one of the processes is in the pid namespace of a sandbox beside the sandbox's own.
func (m *members) joined(processes []int) (bool, error) {
	for _, process := range processes {
		if m.pauses[process] {
			continue
		}
		name, err := readNamespace(process, "pid")
		if err != nil && !proc.Over(err) {
			return false, err
		}
		if err == nil && m.sandboxes[name] {
			return true, nil
		}
	}
	return false, nil
}

// below says whether the pid namespace of a process is below one of the pod's. Only the answer no may be kept: the number
// of a namespace that ends is given to the next one, which may be another pod's.
func (m *members) below(process int) (bool, error) {
	file, err := os.Open(namespaceFile(process, "pid"))
	if err != nil {
		return false, err
	}
	defer func() { _ = file.Close() }()
	for range maxNested {
		name, err := nameOf(file, "pid")
		if err != nil || m.own[name] || name == m.node {
			return m.own[name], err
		}
		parent, err := unix.IoctlRetInt(int(file.Fd()), unix.NS_GET_PARENT)
		if errors.Is(err, unix.EPERM) { // it is not below the namespace of this process, and so not below a pod's
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("find the parent of the pid namespace of process %d: %w", process, err)
		}
		_ = file.Close()
		file = os.NewFile(uintptr(parent), "parent of a pid namespace")
	}
	return false, nil
}

func readNamespace(process int, kind string) (string, error) {
	var buffer [64]byte // pid:[4026531836]
	file := namespaceFile(process, kind)
	length, err := unix.Readlink(file, buffer[:])
	if err != nil {
		return "", fmt.Errorf("read %s: %w", file, err)
	}
	return string(buffer[:length]), nil
}
