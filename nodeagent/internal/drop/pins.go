package drop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/bpf"
)

// countersPin is the file of the counters in a pod's folder; every other file there is a link.
const countersPin = "counters"

// point is a place where a program is wanted.
type point struct {
	kind      v1alpha1.HookProgram
	direction v1alpha1.HookDirection
	program   *ebpf.Program
	attach    ebpf.AttachType
	key       bpf.DropCounterKey
	device    string // path of the cgroup or name of the device
	ifindex   int    // of the device
	netns     uint64 // inode of the pod's side
}

// id names the hook in the record and its pin in the folder. A device counts by its index, since it can be renamed.
func (p point) id() string {
	direction := strings.ToLower(string(p.direction))
	if p.kind == v1alpha1.HookTcx {
		return "tcx-" + direction + "-" + strconv.Itoa(p.ifindex)
	}
	return "cgroup-" + direction
}

// pins is a pod's folder in the bpf file system, with a set of programs that counts into its counters.
type pins struct {
	folder  string
	objects bpf.DropObjects
}

// openPins makes the folder, or adopts it with the counters that are pinned there. The caller closes it, which detaches
// nothing that is pinned.
func openPins(folder string, spec *ebpf.CollectionSpec) (*pins, error) {
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the folder of pins: %w", err)
	}
	p := &pins{folder: folder}
	options := new(ebpf.CollectionOptions)
	counters, err := ebpf.LoadPinnedMap(p.path(countersPin), nil)
	adopted := err == nil
	switch {
	case adopted:
		options.MapReplacements = map[string]*ebpf.Map{bpf.DropMapCounters: counters}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open the pinned counters: %w", err)
	}
	err = spec.Copy().LoadAndAssign(&p.objects, options)
	if adopted {
		err = errors.Join(err, counters.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("load the drop programs: %w", err)
	}
	if !adopted {
		if err := p.objects.Counters.Pin(p.path(countersPin)); err != nil {
			return nil, errors.Join(fmt.Errorf("pin the counters: %w", err), p.close())
		}
	}
	return p, nil
}

func (p *pins) close() error { return p.objects.Close() }

func (p *pins) path(name string) string { return filepath.Join(p.folder, name) }

// hook makes sure that the point has its program: a pinned link that the kernel confirms is adopted, anything else is
// replaced. The record is returned together with the error when the hook was attached but not confirmed.
func (p *pins) hook(at point) (v1alpha1.Hook, error) {
	record, err := p.adopt(at)
	if err == nil {
		return p.count(record, at)
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNotInPlace) {
		return v1alpha1.Hook{}, fmt.Errorf("adopt hook %s: %w", at.id(), err)
	}
	record, err = p.attach(at)
	if err != nil {
		return record, fmt.Errorf("attach hook %s: %w", at.id(), err)
	}
	return p.count(record, at)
}

func (p *pins) adopt(at point) (v1alpha1.Hook, error) {
	pin := p.path(at.id())
	info, err := os.Stat(pin)
	if err != nil {
		return v1alpha1.Hook{}, err
	}
	pinned, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return v1alpha1.Hook{}, err
	}
	err = verify(pinned, at)
	if err := errors.Join(err, pinned.Close()); err != nil {
		return v1alpha1.Hook{}, err
	}
	// The pin is as old as the link; the bpf file system keeps no more exact time than the kernel's tick.
	return at.record(info.ModTime()), nil
}

func (p *pins) attach(at point) (v1alpha1.Hook, error) {
	if err := p.objects.Counters.Update(at.key, bpf.DropCounter{}, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		// Without a counter the program drops all the same: a pod with very many devices loses counts, not the drop.
		if !errors.Is(err, unix.E2BIG) {
			return v1alpha1.Hook{}, fmt.Errorf("insert its counter: %w", err)
		}
	}
	made, err := attach(at)
	if err != nil {
		return v1alpha1.Hook{}, err
	}
	record := at.record(time.Now())
	// A pin in the way is that of a link that the kernel no longer has in place.
	if err := os.Remove(p.path(at.id())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return v1alpha1.Hook{}, errors.Join(err, made.Close())
	}
	if err := made.Pin(p.path(at.id())); err != nil {
		return v1alpha1.Hook{}, errors.Join(err, made.Close())
	}
	if err := verify(made, at); err != nil {
		record.Verified = false
		return record, errors.Join(err, made.Close())
	}
	return record, made.Close()
}

// record is the hook as confirmed.
func (p point) record(attachedAt time.Time) v1alpha1.Hook {
	at := metav1.NewMicroTime(attachedAt)
	return v1alpha1.Hook{
		ID: p.id(), Program: p.kind, Direction: p.direction, Device: p.device, Verified: true, AttachedAt: &at,
		NetnsInode: int64(p.netns), // #nosec G115 -- inodes of nsfs are 32 bits wide
	}
}

// count adds what the hook dropped so far.
func (p *pins) count(record v1alpha1.Hook, at point) (v1alpha1.Hook, error) {
	err := addCounter(&record, p.objects.Counters, at.key)
	return record, err
}
