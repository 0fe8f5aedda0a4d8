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
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/bpf"
)

// Kernels before 6.6 have no tcx. There the programs are filters of a clsact qdisc: classic traffic control, which keeps
// them when this process ends. The filter's program is pinned under the hook's id, so that it is found again.
const (
	// filterHandle is ours: another program's filter, such as a CNI's, is never replaced. Within one priority the kernel
	// puts the newest filter first.
	filterHandle   = 0x7567616c
	filterPriority = 1
	// newSuffix ends the name of a pin that is being made. No hook has such a name.
	newSuffix = "-new"
)

// hasTCX asks the kernel, about a device that every namespace has; nothing is attached.
func hasTCX() (bool, error) {
	const loopback = 1
	_, err := link.QueryPrograms(link.QueryOptions{Target: loopback, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask the kernel for tcx: %w", err)
	}
	return true, nil
}

func parentOf(direction v1alpha1.HookDirection) uint32 {
	if direction == v1alpha1.HookIngress {
		return netlink.HANDLE_MIN_INGRESS
	}
	return netlink.HANDLE_MIN_EGRESS
}

// attachFilter runs on a thread in the node's network namespace. The pin comes first: a filter that no pin tells of would
// never be taken off.
func (p *pins) attachFilter(at point) (v1alpha1.Hook, error) {
	if err := ensureClsact(at.ifindex); err != nil {
		return v1alpha1.Hook{}, err
	}
	if err := p.pinFilter(at, time.Now()); err != nil {
		return v1alpha1.Hook{}, err
	}
	if err := p.setFilter(at); err != nil {
		return v1alpha1.Hook{}, err
	}
	record := at.record(time.Now())
	if err := p.confirmFilter(at); err != nil {
		record.Verified = false
		return record, err
	}
	return record, nil
}

// updateFilter gives a filter that is in place our program. Its pin is a new one, and as old as the filter.
func (p *pins) updateFilter(at point, attachedAt time.Time) (v1alpha1.Hook, error) {
	if err := p.pinFilter(at, attachedAt); err != nil {
		return v1alpha1.Hook{}, err
	}
	if err := p.setFilter(at); err != nil {
		return v1alpha1.Hook{}, err
	}
	return at.record(attachedAt), p.confirmFilter(at)
}

// pinFilter pins our program with the time of its filter, in place of the pin before: whenever it is interrupted, one of the
// two is there. It finds a pin that was not finished, or unpin does.
func (p *pins) pinFilter(at point, attachedAt time.Time) error {
	unfinished := p.path(at.id() + newSuffix)
	if err := os.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove an unfinished pin: %w", err)
	}
	pin, err := p.program(at).Clone()
	if err != nil {
		return fmt.Errorf("copy the program: %w", err)
	}
	if err := errors.Join(pin.Pin(unfinished), pin.Close()); err != nil {
		return err
	}
	if err := os.Chtimes(unfinished, time.Time{}, attachedAt); err != nil {
		return fmt.Errorf("set the time of a pin: %w", err)
	}
	if err := os.Rename(unfinished, p.path(at.id())); err != nil {
		return fmt.Errorf("put a pin in its place: %w", err)
	}
	return nil
}

// setFilter puts our program into our filter. A filter of ours that is not the first any more is taken off before, since an
// exchange leaves it where it is.
func (p *pins) setFilter(at point) error {
	if err := p.confirmFilter(at); errors.Is(err, errNotInPlace) {
		if err := p.removeFilter(at); err != nil {
			return err
		}
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: at.ifindex, Parent: parentOf(at.direction), Handle: filterHandle, Priority: filterPriority, Protocol: unix.ETH_P_ALL,
		},
		Fd: p.program(at).FD(), Name: "ugallu-drop", DirectAction: true,
	}
	if err := netlink.FilterReplace(filter); err != nil {
		return fmt.Errorf("set the filter: %w", err)
	}
	return nil
}

// ensureClsact adds the qdisc that has both sides. An ingress qdisc, as of a bandwidth plugin, is in its place: with it the
// egress side would be the ingress side again.
func ensureClsact(ifindex int) error {
	device := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
	err := netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}})
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("add a clsact qdisc: %w", err)
	}
	qdiscs, err := netlink.QdiscList(device)
	if err != nil {
		return fmt.Errorf("list the qdiscs of device %d: %w", ifindex, err)
	}
	for _, qdisc := range qdiscs {
		if qdisc.Attrs().LinkIndex == ifindex && qdisc.Type() == "clsact" {
			return nil
		}
	}
	return errNoClsact
}

var errNoClsact = errors.New("another qdisc is in the place of the clsact qdisc")

// confirmFilter demands that our program is the first of its side of the device.
func (p *pins) confirmFilter(at point) error {
	first, err := firstFilter(at.ifindex, at.direction)
	switch {
	case err != nil:
		return err
	case first == nil || first.Handle != filterHandle:
		return errNotInPlace
	}
	return sameProgram(ebpf.ProgramID(first.Id), p.program(at)) // #nosec G115 -- the kernel's ids are 32 bits wide
}

// firstFilter returns the first filter of a side of a device, nil when there is none or it is not a program.
func firstFilter(ifindex int, direction v1alpha1.HookDirection) (*netlink.BpfFilter, error) {
	device := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
	filters, err := netlink.FilterList(device, parentOf(direction))
	if err != nil {
		return nil, fmt.Errorf("list the filters of device %d: %w", ifindex, err)
	}
	if len(filters) == 0 {
		return nil, nil
	}
	first, _ := filters[0].(*netlink.BpfFilter)
	return first, nil
}

// removeFilter takes a filter of ours off its device.
func (p *pins) removeFilter(at point) error { return removeFilter(p.folder, at.ifindex, at.direction) }

// removeFilter takes the pod's filter off a device, when the device still has it: the maps tell it from that of another pod,
// should the device's index have been given away again. It runs in the node's network namespace.
func removeFilter(folder string, ifindex int, direction v1alpha1.HookDirection) error {
	var own ebpf.MapID
	err := withMap(folder, bpf.DropMapCounters, func(counters *ebpf.Map) error {
		info, err := counters.Info()
		if err == nil {
			own, _ = info.ID()
		}
		return err
	})
	if err != nil {
		return err
	}
	device := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
	filters, err := netlink.FilterList(device, parentOf(direction))
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		return nil // the device, or its qdisc, went with the pod
	}
	if err != nil {
		return fmt.Errorf("list the filters of device %d: %w", ifindex, err)
	}
	for _, filter := range filters {
		ours, is := filter.(*netlink.BpfFilter)
		if !is || ours.Handle != filterHandle {
			continue
		}
		uses, err := usesMap(ebpf.ProgramID(ours.Id), own) // #nosec G115 -- the kernel's ids are 32 bits wide
		if err != nil {
			return err
		}
		if !uses {
			continue
		}
		if err := netlink.FilterDel(ours); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove the filter of device %d: %w", ifindex, err)
		}
	}
	return nil
}

func usesMap(program ebpf.ProgramID, wanted ebpf.MapID) (bool, error) {
	opened, err := ebpf.NewProgramFromID(program)
	if err != nil {
		return false, fmt.Errorf("open program %d: %w", program, err)
	}
	info, err := opened.Info()
	if err := errors.Join(err, opened.Close()); err != nil {
		return false, fmt.Errorf("ask for program %d: %w", program, err)
	}
	ids, _ := info.MapIDs()
	return slices.Contains(ids, wanted), nil
}
