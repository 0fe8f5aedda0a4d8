package drop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/v1alpha1"
)

// errNotInPlace says that the kernel does not list our program where it is wanted.
var errNotInPlace = errors.New("the kernel does not list the program there")

// errAnotherProgram says that a hook of ours is in place and runs another program, or ours with other maps.
var errAnotherProgram = errors.New("the hook runs another program")

func isFull(err error) bool { return errors.Is(err, unix.E2BIG) }

// confirm asks the kernel whether the pinned hook runs the program that is wanted, and whether the target lists it.
func (p *pins) confirm(at point) error {
	if at.kind == v1alpha1.HookClsact {
		return p.confirmFilter(at)
	}
	return p.withLink(at, func(pinned link.Link) error { return p.verify(pinned, at) })
}

// update gives a hook that is in place our program. The kernel exchanges them in one step: no packet passes between.
func (p *pins) update(at point) (v1alpha1.Hook, error) {
	info, err := os.Stat(p.path(at.id()))
	if err != nil {
		return v1alpha1.Hook{}, err
	}
	if err := p.insertCounter(at); err != nil {
		return v1alpha1.Hook{}, err
	}
	if at.kind == v1alpha1.HookClsact {
		return p.updateFilter(at, info.ModTime())
	}
	err = p.withLink(at, func(pinned link.Link) error {
		if err := pinned.Update(p.program(at)); err != nil {
			return err
		}
		return p.verify(pinned, at)
	})
	return at.record(info.ModTime()), err
}

func (p *pins) withLink(at point, use func(link.Link) error) error {
	pinned, err := link.LoadPinnedLink(p.path(at.id()), nil)
	if err != nil {
		return err
	}
	return errors.Join(use(pinned), pinned.Close())
}

// attach puts the program in place and pins it. On a device it goes to the head of the chain: no program of a CNI sees a
// packet first. A pin in the way is that of a hook that the kernel no longer has in place.
func (p *pins) attach(at point) (v1alpha1.Hook, error) {
	if at.kind == v1alpha1.HookClsact {
		return p.attachFilter(at)
	}
	made, err := makeLink(at, p.program(at))
	if errors.Is(err, fs.ErrExist) {
		made, err = p.attachCopy(at)
	}
	if err != nil {
		return v1alpha1.Hook{}, err
	}
	record := at.record(time.Now())
	if err := p.clear(at); err != nil {
		return v1alpha1.Hook{}, errors.Join(err, made.Close())
	}
	if err := made.Pin(p.path(at.id())); err != nil {
		return v1alpha1.Hook{}, errors.Join(err, made.Close())
	}
	if err := p.verify(made, at); err != nil {
		record.Verified = false
		return record, errors.Join(err, made.Close())
	}
	return record, made.Close()
}

func (p *pins) clear(at point) error {
	if err := os.Remove(p.path(at.id())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// attachCopy attaches another copy of the program: the kernel takes one program once on a device, and the first may still
// be there, behind another's or without its pin.
func (p *pins) attachCopy(at point) (link.Link, error) {
	again, err := p.load(forRunning(at.program))
	if err != nil {
		return nil, err
	}
	defer again.Close()
	return makeLink(at, again.Programs[at.program])
}

func makeLink(at point, program *ebpf.Program) (link.Link, error) {
	if at.kind == v1alpha1.HookTcx {
		return link.AttachTCX(link.TCXOptions{
			Interface: at.ifindex, Program: program, Attach: at.attach, Anchor: link.Head(),
		})
	}
	return link.AttachCgroup(link.CgroupOptions{Path: at.device, Program: program, Attach: at.attach})
}

// verify asks the kernel whether the link runs the program that is wanted, and whether the target lists that program: on a
// device as the first one, since a program before it could let packets pass.
func (p *pins) verify(made link.Link, at point) error {
	info, err := made.Info()
	if err != nil {
		return fmt.Errorf("ask for the link: %w", err)
	}
	listed, err := programsAt(at)
	if err != nil {
		return err
	}
	if at.kind == v1alpha1.HookTcx && len(listed) > 0 {
		listed = listed[:1]
	}
	if !slices.ContainsFunc(listed, func(program link.AttachedProgram) bool { return program.ID == info.Program }) {
		return errNotInPlace
	}
	return sameProgram(info.Program, p.program(at))
}

// sameProgram compares tags, which the kernel computes over the instructions, and maps: a hook adopted from an earlier
// start runs another copy of the program, and one from another version is to be replaced.
func sameProgram(id ebpf.ProgramID, want *ebpf.Program) error {
	wantInfo, err := want.Info()
	if err != nil {
		return fmt.Errorf("ask for the loaded program: %w", err)
	}
	if wantID, known := wantInfo.ID(); known && wantID == id {
		return nil
	}
	running, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return fmt.Errorf("open program %d: %w", id, err)
	}
	runningInfo, err := running.Info()
	if err := errors.Join(err, running.Close()); err != nil {
		return fmt.Errorf("ask for program %d: %w", id, err)
	}
	if runningInfo.Tag != wantInfo.Tag || !sameMaps(runningInfo, wantInfo) {
		return errAnotherProgram
	}
	return nil
}

func sameMaps(a, b *ebpf.ProgramInfo) bool {
	mapsOfA, _ := a.MapIDs()
	mapsOfB, _ := b.MapIDs()
	slices.Sort(mapsOfA)
	slices.Sort(mapsOfB)
	return slices.Equal(mapsOfA, mapsOfB)
}

func programsAt(at point) ([]link.AttachedProgram, error) {
	if at.kind == v1alpha1.HookTcx {
		return query(at.ifindex, at)
	}
	cgroup, err := os.Open(at.device)
	if err != nil {
		return nil, fmt.Errorf("open the cgroup: %w", err)
	}
	programs, err := query(int(cgroup.Fd()), at)
	return programs, errors.Join(err, cgroup.Close())
}

func query(target int, at point) ([]link.AttachedProgram, error) {
	result, err := link.QueryPrograms(link.QueryOptions{Target: target, Attach: at.attach})
	if err != nil {
		return nil, fmt.Errorf("ask what is attached to %s: %w", at.device, err)
	}
	return result.Programs, nil
}
