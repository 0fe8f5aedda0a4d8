package drop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/bpf"
)

// point is a place where a program is wanted.
type point struct {
	kind      v1alpha1.HookProgram
	direction v1alpha1.HookDirection
	program   string // by its name in the object file
	attach    ebpf.AttachType
	key       bpf.DropCounterKey
	device    string // path of the cgroup or name of the device
	ifindex   int    // of the device, in the namespace that the program is attached in
	netns     uint64 // inode of the pod's side
	inside    bool   // the device is the pod's side
	node      int    // index of the node's side
}

// id names the hook in the record and its pin in the folder. A device counts by its index, since it can be renamed.
func (p point) id() string {
	direction := strings.ToLower(string(p.direction))
	if p.inside {
		return "tcx-inside-" + strconv.Itoa(p.node) + "-" + strconv.Itoa(p.ifindex)
	}
	switch p.kind {
	case v1alpha1.HookTcx:
		return "tcx-" + direction + "-" + strconv.Itoa(p.ifindex)
	case v1alpha1.HookClsact:
		return "clsact-" + direction + "-" + strconv.Itoa(p.ifindex)
	case v1alpha1.HookCgroupSkb:
	}
	return "cgroup-" + direction
}

// record is the hook as confirmed.
func (p point) record(attachedAt time.Time) v1alpha1.Hook {
	at := metav1.NewMicroTime(attachedAt)
	return v1alpha1.Hook{
		ID: p.id(), Program: p.kind, Direction: p.direction, Device: p.device, Verified: true, AttachedAt: &at,
		NetnsInode: int64(p.netns), // #nosec G115 -- inodes of nsfs are 32 bits wide
	}
}

// pins is a pod's folder in the bpf file system: the maps by their names and the hooks by their ids. The programs count
// into the pinned maps. It stays loaded as long as the pod is cut off, so that looking at a pod again loads nothing.
type pins struct {
	folder string
	spec   *ebpf.CollectionSpec
	// mutex guards frozen and running: the hooks are attached side by side.
	mutex sync.Mutex
	// frozen and running are the programs for a pod whose processes do not run, or do. Each is loaded when it is first
	// wanted: the verifier takes 3 ms for the first and 5 for the second.
	frozen, running *ebpf.Collection
	// mapsLost says that maps of another version were in the folder and what they counted is gone.
	mapsLost bool
}

// isMap tells the pin of a map from that of a hook.
func isMap(name string) bool { return slices.Contains(mapNames(), name) }

func mapNames() []string {
	return []string{
		bpf.DropMapCounters, bpf.DropMapFirstFlows, bpf.DropMapLaterFlows, bpf.DropMapFlowTotals,
		bpf.DropMapProbeFlows, bpf.DropMapProbeSource,
	}
}

// openPins makes the folder, or adopts it with the maps that are pinned there, and has the programs that suit loaded: a new
// folder takes the spare ones. The caller closes it, which detaches nothing that is pinned.
func openPins(folder string, spec *ebpf.CollectionSpec, running bool, spare *spare) (*pins, error) {
	p := &pins{folder: folder, spec: spec}
	err := os.Mkdir(folder, 0o700)
	switch {
	case err == nil && !running && p.use(spare.take()):
		return p, nil
	case err != nil && !errors.Is(err, fs.ErrExist):
		return nil, fmt.Errorf("make the folder of pins: %w", err)
	}
	err = p.want(running)
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		// An earlier version's: its hooks keep using its maps until they are replaced.
		p.mapsLost = true
		for _, name := range mapNames() {
			if err := os.Remove(p.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("remove the pin of an incompatible map: %w", err)
			}
		}
		err = p.want(running)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// use pins the maps of programs that are loaded already, and says whether it did. Maps that it pinned before it could not go
// on are taken for the pod's by the load that follows.
func (p *pins) use(loaded *ebpf.Collection) bool {
	if loaded == nil {
		return false
	}
	for name, m := range loaded.Maps {
		if err := m.Pin(p.path(name)); err != nil {
			loaded.Close()
			return false
		}
	}
	p.frozen = loaded
	return true
}

// want loads the programs that suit, unless they are loaded.
func (p *pins) want(running bool) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	set := p.set(running)
	if *set != nil {
		return nil
	}
	loaded, err := p.load(running)
	if err != nil {
		return fmt.Errorf("load the drop programs: %w", err)
	}
	*set = loaded
	return nil
}

func (p *pins) set(running bool) **ebpf.Collection {
	if running {
		return &p.running
	}
	return &p.frozen
}

func (p *pins) load(running bool) (*ebpf.Collection, error) {
	pinned := programsFor(p.spec, running)
	for _, m := range pinned.Maps {
		m.Pinning = ebpf.PinByName
	}
	return ebpf.NewCollectionWithOptions(pinned, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: p.folder}})
}

// forRunning tells which set a program is of.
func forRunning(program string) bool { return strings.HasPrefix(program, "isolate_") }

// close detaches nothing.
func (p *pins) close() {
	for _, set := range []*ebpf.Collection{p.frozen, p.running} {
		if set != nil {
			set.Close()
		}
	}
}

func (p *pins) program(at point) *ebpf.Program {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return (*p.set(forRunning(at.program))).Programs[at.program]
}

// pinned is a map, the same in both sets.
func (p *pins) pinned(name string) *ebpf.Map {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.frozen != nil {
		return p.frozen.Maps[name]
	}
	return p.running.Maps[name]
}

func (p *pins) counters() *ebpf.Map { return p.pinned(bpf.DropMapCounters) }

func (p *pins) path(name string) string { return filepath.Join(p.folder, name) }

// hook makes sure that the point has its program: a hook that the kernel confirms is adopted, one that runs another
// program is given ours in one step, anything else is attached anew. The record is returned together with the error when
// the hook was attached but not confirmed.
func (p *pins) hook(at point) (v1alpha1.Hook, error) {
	record, err := p.adopt(at)
	if errors.Is(err, errAnotherProgram) {
		record, err = p.update(at)
	}
	if err == nil {
		return p.count(record, at)
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNotInPlace) {
		return v1alpha1.Hook{}, fmt.Errorf("adopt hook %s: %w", at.id(), err)
	}
	if err := p.insertCounter(at); err != nil {
		return v1alpha1.Hook{}, fmt.Errorf("attach hook %s: %w", at.id(), err)
	}
	record, err = p.attach(at)
	if err != nil {
		return record, fmt.Errorf("attach hook %s: %w", at.id(), err)
	}
	return p.count(record, at)
}

func (p *pins) adopt(at point) (v1alpha1.Hook, error) {
	info, err := os.Stat(p.path(at.id()))
	if err != nil {
		return v1alpha1.Hook{}, err
	}
	// The pin is as old as the hook; the bpf file system keeps no more exact time than the kernel's tick.
	return at.record(info.ModTime()), p.confirm(at)
}

// insertCounter is called before each attachment. Without a counter the program drops all the same: a pod with very many
// devices loses counts, not the drop.
func (p *pins) insertCounter(at point) error {
	err := p.counters().Update(at.key, bpf.DropCounter{}, ebpf.UpdateNoExist)
	if err == nil || errors.Is(err, ebpf.ErrKeyExist) || isFull(err) {
		return nil
	}
	return fmt.Errorf("insert its counter: %w", err)
}

// count adds what the hook dropped so far.
func (p *pins) count(record v1alpha1.Hook, at point) (v1alpha1.Hook, error) {
	err := addCounter(&record, p.counters(), at.key)
	return record, err
}
