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
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/bpf"
	"ugallu.io/forensics/nodeagent/internal/proc"
)

// observe reads the hooks from the folder's pins alone: the pod and its devices may be gone.
func observe(folder string) ([]v1alpha1.Hook, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the pins: %w", err)
	}
	counters, err := ebpf.LoadPinnedMap(filepath.Join(folder, bpf.DropMapCounters), &ebpf.LoadPinOptions{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the pinned counters: %w", err)
	}
	var hooks []v1alpha1.Hook
	for _, entry := range entries {
		record, key, ok := parsePin(entry.Name())
		if !ok {
			continue
		}
		err = errors.Join(addTime(&record, entry), addCounter(&record, counters, key))
		if err != nil {
			break
		}
		hooks = append(hooks, record)
	}
	return hooks, errors.Join(err, counters.Close())
}

// parsePin undoes point.id.
func parsePin(name string) (v1alpha1.Hook, bpf.DropCounterKey, bool) {
	parts := strings.Split(name, "-")
	if len(parts) < 2 {
		return v1alpha1.Hook{}, bpf.DropCounterKey{}, false
	}
	record := v1alpha1.Hook{ID: name, Direction: v1alpha1.HookIngress}
	egress := parts[1] == "egress"
	if egress {
		record.Direction = v1alpha1.HookEgress
	}
	switch {
	case parts[0] == "cgroup" && len(parts) == 2:
		record.Program = v1alpha1.HookCgroupSkb
		return record, bpf.DropCounterKey{Hook: either(egress, bpf.DropHookCgroupEgress, bpf.DropHookCgroupIngress)}, true
	case parts[0] == "tcx" && parts[1] == "inside" && len(parts) == 4:
		ifindex, err := strconv.ParseUint(parts[3], 10, 31)
		record.Program, record.Direction, record.Device = v1alpha1.HookTcx, v1alpha1.HookEgress, "ifindex "+parts[3]+" in the pod"
		return record, bpf.DropCounterKey{Hook: bpf.DropHookInsideEgress, Ifindex: uint32(ifindex)}, err == nil
	case (parts[0] == "tcx" || parts[0] == "clsact") && len(parts) == 3:
		ifindex, err := strconv.ParseUint(parts[2], 10, 31)
		record.Program, record.Device = v1alpha1.HookTcx, "ifindex "+parts[2]
		if parts[0] == "clsact" {
			record.Program = v1alpha1.HookClsact
		}
		key := bpf.DropCounterKey{Hook: either(egress, bpf.DropHookDeviceEgress, bpf.DropHookDeviceIngress), Ifindex: uint32(ifindex)}
		return record, key, err == nil
	}
	return v1alpha1.Hook{}, bpf.DropCounterKey{}, false
}

func either(egress bool, out, in bpf.DropHook) bpf.DropHook {
	if egress {
		return out
	}
	return in
}

// addTime copies when the hook was attached into its record. The pin is as old as the hook; the bpf file system keeps no more
// exact time than the kernel's tick.
func addTime(record *v1alpha1.Hook, pin os.DirEntry) error {
	info, err := pin.Info()
	if err != nil {
		return fmt.Errorf("look at the pin of hook %s: %w", record.ID, err)
	}
	at := metav1.NewMicroTime(info.ModTime())
	record.AttachedAt = &at
	return nil
}

// addCounter copies one hook's counter into its record. A hook without a counter dropped nothing that was counted.
func addCounter(record *v1alpha1.Hook, counters *ebpf.Map, key bpf.DropCounterKey) error {
	var counter bpf.DropCounter
	err := counters.Lookup(key, &counter)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the counter of hook %s: %w", record.ID, err)
	}
	record.Packets, record.Bytes = int64(counter.Packets), int64(counter.Bytes) // #nosec G115 -- 2^63 bytes do not pass a device
	if counter.FirstNanos == 0 {
		return nil
	}
	booted, err := bootTime()
	if err != nil {
		return err
	}
	record.FirstDrop, record.LastDrop = after(booted, counter.FirstNanos), after(booted, counter.LastNanos)
	return nil
}

// bootTime is where CLOCK_BOOTTIME, which the programs read, has its zero on the real-time clock.
func bootTime() (time.Time, error) {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return time.Time{}, fmt.Errorf("read CLOCK_BOOTTIME: %w", err)
	}
	return time.Now().Add(-time.Duration(since.Nano())), nil
}

func after(booted time.Time, nanos uint64) *metav1.MicroTime {
	at := metav1.NewMicroTime(booted.Add(time.Duration(nanos))) // #nosec G115 -- 292 years since boot
	return &at
}

// unpin removes the hooks first and the maps last, so that an interrupted call can be repeated.
func unpin(folder, nodeNetns string) error {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := removeFilters(folder, nodeNetns, entries); err != nil {
		return err
	}
	for _, maps := range []bool{false, true} {
		for _, entry := range entries {
			if isMap(entry.Name()) != maps {
				continue
			}
			if err := os.Remove(filepath.Join(folder, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return os.Remove(folder)
}

// removeFilters takes the filters off the devices. A link ends with its pin, a filter does not.
func removeFilters(folder, nodeNetns string, entries []os.DirEntry) error {
	var filters []point
	for _, entry := range entries {
		record, key, ok := parsePin(entry.Name())
		if ok && record.Program == v1alpha1.HookClsact {
			filters = append(filters, point{kind: record.Program, direction: record.Direction, ifindex: int(key.Ifindex)})
		}
	}
	if len(filters) == 0 {
		return nil
	}
	node, err := os.Open(nodeNetns) // #nosec G304 -- the configured namespace file of process 1
	if err != nil {
		return fmt.Errorf("open the node's network namespace: %w", err)
	}
	err = proc.Within(int(node.Fd()), unix.CLONE_NEWNET, func() error {
		var errs []error
		for _, filter := range filters {
			errs = append(errs, removeFilter(folder, filter.ifindex, filter.direction))
		}
		return errors.Join(errs...)
	})
	return errors.Join(err, node.Close())
}
