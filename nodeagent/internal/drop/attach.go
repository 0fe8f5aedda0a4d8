package drop

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"ugallu.io/forensics/api/v1alpha1"
)

// errNotInPlace says that the kernel does not list our program where it is wanted.
var errNotInPlace = errors.New("the kernel does not list the program there")

// attach puts the program in place. On a device it goes to the head of the chain: no program of a CNI sees a packet first.
func attach(at point) (link.Link, error) {
	if at.kind == v1alpha1.HookTcx {
		return link.AttachTCX(link.TCXOptions{
			Interface: at.ifindex, Program: at.program, Attach: at.attach, Anchor: link.Head(),
		})
	}
	return link.AttachCgroup(link.CgroupOptions{Path: at.device, Program: at.program, Attach: at.attach})
}

// verify asks the kernel whether the link runs the program that is wanted, and whether the target lists that program: on a
// device as the first one, since a program before it could let packets pass.
func verify(made link.Link, at point) error {
	info, err := made.Info()
	if err != nil {
		return fmt.Errorf("ask for the link: %w", err)
	}
	if err := sameProgram(info.Program, at.program); err != nil {
		return err
	}
	listed, err := programsAt(at)
	if err != nil {
		return err
	}
	if at.kind == v1alpha1.HookTcx && len(listed) > 0 {
		listed = listed[:1]
	}
	for _, program := range listed {
		if program.ID == info.Program {
			return nil
		}
	}
	return errNotInPlace
}

// sameProgram compares tags, which the kernel computes over the instructions: a link adopted from an earlier start runs
// another copy of the program, and one from another version is to be replaced.
func sameProgram(id ebpf.ProgramID, want *ebpf.Program) error {
	running, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return fmt.Errorf("open program %d: %w", id, err)
	}
	runningInfo, err := running.Info()
	if err := errors.Join(err, running.Close()); err != nil {
		return fmt.Errorf("ask for program %d: %w", id, err)
	}
	wantInfo, err := want.Info()
	if err != nil {
		return fmt.Errorf("ask for the loaded program: %w", err)
	}
	if runningInfo.Tag != wantInfo.Tag {
		return errNotInPlace
	}
	return nil
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
