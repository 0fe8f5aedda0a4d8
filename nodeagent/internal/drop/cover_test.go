package drop

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/bpf"
	"ugallu.io/forensics/nodeagent/internal/proc"
)

func TestAPacketToThePodIsSeenCounted(t *testing.T) {
	p := newPod(t)
	p.target.Probe = true
	result := attached(t, dropper(t, p.config), p.target)
	probed := 0
	for _, hook := range result.Hooks {
		if hook.ProbedAt != nil {
			probed++
		}
	}
	if result.Level != v1alpha1.LevelFull || probed != 1 {
		t.Errorf("Attach = %+v, want Full with the one hook towards the pod probed", result)
	}
}

func TestAHookThatDoesNotCountThePacketIsNotVerified(t *testing.T) {
	p := newPod(t)
	d := dropper(t, p.config)
	result := attached(t, d, p.target)
	if err := os.Remove(filepath.Join(d.folder(p.target.PodUID), "tcx-egress-2")); err != nil {
		t.Fatalf("%v; there are %+v", err, result.Hooks)
	}
	var probed error
	err := p.onNode(t, func() error {
		if err := unhooked(t, 2, ebpf.AttachTCXEgress); err != nil {
			return err
		}
		pins := d.open[p.target.PodUID]
		at := point{kind: v1alpha1.HookTcx, direction: v1alpha1.HookEgress, ifindex: 2, key: bpf.DropCounterKey{Hook: bpf.DropHookDeviceEgress, Ifindex: 2}}
		_, probed = pins.probe(at, device{name: "vpod", ifindex: 2, inside: inside{address: net.ParseIP(podAddress)}})
		return nil
	})
	if err != nil || probed == nil || !strings.Contains(probed.Error(), "not counted") {
		t.Errorf("the probe of a hook that is gone says %v, %v", probed, err)
	}
}

// unhooked waits until the kernel, which lets a link go behind its readers, runs no program at a device any more.
func unhooked(t *testing.T, ifindex int, at ebpf.AttachType) error {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		result, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: at})
		if err != nil || len(result.Programs) == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("device %d still has %d programs", ifindex, len(result.Programs))
		}
	}
}

// onNode runs work in the network namespace of the node.
func (p *pod) onNode(t *testing.T, work func() error) error {
	t.Helper()
	node, err := os.Open(p.config.NodeNetns)
	if err != nil {
		t.Fatal(err)
	}
	return errors.Join(proc.Within(int(node.Fd()), unix.CLONE_NEWNET, work), node.Close())
}

func TestClsactDropsWhereTheKernelHasNoTCX(t *testing.T) {
	p := newPod(t)
	p.target.Probe = true
	d := dropper(t, p.config)
	p.foreignFilter(t)
	d.device = v1alpha1.HookClsact
	first := attached(t, d, p.target)
	if first.Level != v1alpha1.LevelFull || len(first.Hooks) != 4 {
		t.Fatalf("Attach = %+v, want Full with 4 hooks", first)
	}
	p.quiet(t)
	again := dropper(t, p.config) // as after a restart
	again.device = v1alpha1.HookClsact
	second := attached(t, again, p.target)
	if second.Level != v1alpha1.LevelFull || len(second.Hooks) != 4 {
		t.Fatalf("Attach again = %+v", second)
	}
	p.quiet(t)
	hooks, err := again.Observe(p.target.PodUID)
	if err != nil || len(hooks) != 4 || byID(hooks)["clsact-ingress-2"].Packets == 0 {
		t.Errorf("Observe = %+v, %v", hooks, err)
	}
	p.target.Running = true // has other programs in place of these
	if third := attached(t, again, p.target); third.Level != v1alpha1.LevelFull {
		t.Fatalf("Attach for a running pod = %+v", third)
	}
	asAttached(t, again, p.target.PodUID, second.Hooks)
	if err := again.Detach(p.target.PodUID); err != nil {
		t.Fatal(err)
	}
	p.loud(t)
	err = p.onNode(t, func() error {
		first, err := firstFilter(2, v1alpha1.HookIngress)
		if err == nil && (first == nil || first.Name != "cni") {
			err = fmt.Errorf("the first filter is %+v", first)
		}
		return err
	})
	if err != nil {
		t.Errorf("after Detach: %v", err)
	}
}

// ingressFilter is the filter of what a device lets in, which was attached an hour ago by the pin that it has.
func ingressFilter(t *testing.T, pins *pins, ifindex int) (at point, attachedAt time.Time) {
	t.Helper()
	at = point{
		kind: v1alpha1.HookClsact, direction: v1alpha1.HookIngress, program: bpf.DropProgDropDeviceIngress, ifindex: ifindex,
		key: bpf.DropCounterKey{Hook: bpf.DropHookDeviceIngress, Ifindex: uint32(ifindex)},
	}
	attachedAt = time.Now().Add(-time.Hour).Truncate(time.Microsecond)
	if err := pins.pinFilter(at, attachedAt); err != nil {
		t.Fatal(err)
	}
	return at, attachedAt
}

// unfinished leaves the pin that an agent leaves that is killed before the pin is in its place.
func unfinished(t *testing.T, pins *pins, at point) (path string) {
	t.Helper()
	path = pins.path(at.id() + newSuffix)
	program, err := pins.program(at).Clone()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(program.Pin(path), program.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAFilterIsAsOldAfterAnExchangeThatWasInterrupted(t *testing.T) {
	p := newPod(t)
	d := dropper(t, p.config)
	d.device = v1alpha1.HookClsact
	hooks := byID(attached(t, d, p.target).Hooks)
	pins := d.open[p.target.PodUID]
	at, attachedAt := ingressFilter(t, pins, 2)
	hooks[at.id()] = at.record(attachedAt)
	path := unfinished(t, pins, at)
	asAttached(t, d, p.target.PodUID, slices.Collect(maps.Values(hooks)))

	p.target.Running = true // has other programs in place of these
	again := attached(t, d, p.target)
	if got := byID(again.Hooks)[at.id()]; again.Level != v1alpha1.LevelFull || !got.AttachedAt.Time.Equal(attachedAt) {
		t.Errorf("%+v, attached at %v", again, attachedAt)
	}
	p.quiet(t)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the unfinished pin is left: %v", err)
	}
	unfinished(t, pins, at)
	if err := d.Detach(p.target.PodUID); err != nil {
		t.Fatal(err)
	}
	p.loud(t)
	if pods, err := d.Pods(); err != nil || len(pods) != 0 {
		t.Errorf("Pods after Detach = %v, %v", pods, err)
	}
}

// TestAFilterIsAsOldWhereItsProgramCouldNotBeSet is for a device that went.
func TestAFilterIsAsOldWhereItsProgramCouldNotBeSet(t *testing.T) {
	p := newPod(t)
	d := dropper(t, p.config)
	d.device = v1alpha1.HookClsact
	hooks := attached(t, d, p.target).Hooks
	pins := d.open[p.target.PodUID]
	at, attachedAt := ingressFilter(t, pins, 4711)
	err := p.onNode(t, func() error {
		_, err := pins.update(at)
		return err
	})
	if !errors.Is(err, unix.ENODEV) {
		t.Errorf("update = %v, want no such device", err)
	}
	asAttached(t, d, p.target.PodUID, append(hooks, at.record(attachedAt)))
}

// foreignFilter is what a CNI may have on the device: it ends the chain and lets everything pass.
func (p *pod) foreignFilter(t *testing.T) {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = p.onNode(t, func() error {
		err := netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: 2, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
		}})
		if err != nil {
			return err
		}
		return netlink.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: 2, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL},
			Fd:          program.FD(), Name: "cni", DirectAction: true,
		})
	})
	if err := errors.Join(err, program.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestProcessesThatRunAgainAreStillCutOff goes from the programs for a frozen pod to those for a running one and back, in
// place: the links stay.
func TestProcessesThatRunAgainAreStillCutOff(t *testing.T) {
	p := newPod(t)
	d := dropper(t, p.config)
	first := byID(attached(t, d, p.target).Hooks)
	for _, running := range []bool{true, false} {
		p.target.Running = running
		result := attached(t, d, p.target)
		if result.Level != v1alpha1.LevelFull || len(result.Hooks) != 5 {
			t.Fatalf("Attach with running %t = %+v", running, result)
		}
		for id, hook := range byID(result.Hooks) {
			if moved := hook.AttachedAt.Sub(first[id].AttachedAt.Time); moved > 20*time.Millisecond || moved < -20*time.Millisecond {
				t.Errorf("hook %s was attached anew, %v later", id, moved)
			}
		}
		p.quiet(t)
	}
}

func TestProbesOfTheKubeletReachARunningPodAndNothingElseDoes(t *testing.T) {
	p := newPod(t)
	p.target.Running, p.target.KubeletCgroup = true, ownCgroup(t)
	d := dropper(t, p.config)
	attached(t, d, p.target)
	dial := func() (answer string, err error) {
		err = p.onNode(t, func() error {
			connection, err := net.DialTimeout("tcp4", podAddress+":"+servedPort, time.Second)
			if err != nil {
				return err
			}
			content, err := io.ReadAll(connection)
			answer = string(content)
			return errors.Join(err, connection.Close())
		})
		return answer, err
	}
	for range 3 {
		if answer, err := dial(); err != nil || answer != served {
			t.Fatalf("a probe is answered %q, %v", answer, err)
		}
	}
	p.quiet(t)
	p.target.KubeletCgroup++
	attached(t, d, p.target)
	if answer, err := dial(); err == nil {
		t.Errorf("another process of the node is answered %q", answer)
	}
	p.target.KubeletCgroup--
	p.target.Running = false
	attached(t, d, p.target)
	if answer, err := dial(); err == nil {
		t.Errorf("a probe of a frozen pod is answered %q", answer)
	}
	p.quiet(t)
}

func ownCgroup(t *testing.T) uint64 {
	t.Helper()
	lines, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(lines)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
			if !ok {
				continue
			}
			if handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, root+path, 0); err == nil && handle.Size() == 8 {
				return binary.NativeEndian.Uint64(handle.Bytes())
			}
		}
	}
	t.Fatalf("no cgroup id for %s", lines)
	return 0
}

func TestFlowsNameWhereThePodWantedToSend(t *testing.T) {
	p := newPod(t)
	d := dropper(t, p.config)
	start := time.Now().Add(-time.Second)
	attached(t, d, p.target)
	p.quiet(t)
	flows, err := d.Flows(p.target.PodUID)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []evidence.Flow{{Protocol: 6, DestinationPort: 9001}, {Protocol: 17, SourcePort: 9000, DestinationPort: 9002}} {
		found := slices.ContainsFunc(flows.List, func(f evidence.Flow) bool {
			return f.Protocol == want.Protocol && f.DestinationPort == want.DestinationPort && (want.SourcePort == 0 || f.SourcePort == want.SourcePort) &&
				f.Source == podAddress && f.Destination == outsideAddress && f.EtherType == 0x0800 && f.Direction == evidence.FlowFromPod &&
				f.First && f.Packets > 0 && f.Bytes > 0 && f.FirstDrop.After(start) && !f.LastDrop.Before(f.FirstDrop) && !f.LastDrop.After(time.Now().Add(time.Second))
		})
		if !found {
			t.Errorf("no flow like %+v in %+v", want, flows.List)
		}
	}
	if flows.Evicted != 0 || flows.Uncounted != 0 {
		t.Errorf("%d flows evicted, %d packets not counted", flows.Evicted, flows.Uncounted)
	}
	if err := d.Detach(p.target.PodUID); err != nil {
		t.Fatal(err)
	}
	if flows, err := d.Flows(p.target.PodUID); err != nil || len(flows.List) != 0 {
		t.Errorf("Flows after Detach = %+v, %v", flows, err)
	}
}

func TestSocketsShowThatNothingIsAcknowledgedAnyMore(t *testing.T) {
	p := newPod(t)
	d := dropper(t, p.config)
	sample := func() *v1alpha1.SocketSample {
		got, err := d.Sockets(p.target.Networks, p.target.Processes)
		if err != nil || got == nil {
			t.Fatalf("Sockets = %+v, %v", got, err)
		}
		return got
	}
	before := sample()
	if before.TCPEstablished != 1 || before.TCPListening != 1 || before.BytesAcknowledged == 0 {
		t.Errorf("Sockets = %+v", before)
	}
	attached(t, d, p.target)
	contained := sample()
	p.quiet(t)
	if after := sample(); after.BytesAcknowledged != contained.BytesAcknowledged || !after.At.After(contained.At.Time) {
		t.Errorf("%+v became %+v in a pod that is cut off", contained, after)
	}
	p.config.NodeNetns = p.netns("pod")
	if got, err := dropper(t, p.config).Sockets(nil, p.target.Processes); got != nil || err != nil {
		t.Errorf("sockets of the node are given as the pod's: %+v, %v", got, err)
	}
}

func TestADeviceThatComesLaterIsToldAndCovered(t *testing.T) {
	p := newPod(t)
	d := dropper(t, p.config)
	attached(t, d, p.target)
	ctx, cancel := context.WithCancel(t.Context())
	told, ended := make(chan string, 64), make(chan struct{})
	go func() {
		d.Watch(ctx, func(_ context.Context, podUID string) { told <- podUID })
		close(ended)
	}()
	start := time.Now()
	run(t, "ip -n "+p.prefix+"node link add vlate type veth peer name late netns "+p.prefix+"pod")
	t.Cleanup(func() { run(t, "ip -n "+p.prefix+"node link del vlate") })
	select {
	case podUID := <-told:
		if podUID != p.target.PodUID {
			t.Errorf("told about pod %s", podUID)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a device that came was not told")
	}
	result := attached(t, d, p.target)
	t.Logf("covered within %v", time.Since(start))
	if result.Level != v1alpha1.LevelFull || len(result.Hooks) != 8 {
		t.Errorf("Attach = %+v, want Full with 8 hooks", result)
	}
	cancel()
	<-ended
}

func TestANamespaceOfOneThreadIsThePodsToo(t *testing.T) {
	p := newPod(t)
	dropper(t, p.config)
	pod, err := os.Open(p.netns("pod"))
	if err != nil {
		t.Fatal(err)
	}
	var inode uint64
	found := namespaces{}
	err = proc.Within(int(pod.Fd()), unix.CLONE_NEWNET, func() (err error) {
		if inode, err = inodeOf(pod); err != nil {
			return err
		}
		_, err = found.open([]int{os.Getpid()})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if found[inode] == nil || len(found) < 2 {
		t.Errorf("namespaces %v, want that of the other threads and %d", found, inode)
	}
	if err := errors.Join(found.close(), pod.Close()); err != nil {
		t.Error(err)
	}
}

func TestMapsOfAnotherVersionAreReplacedAndTheLossIsSaid(t *testing.T) {
	p := newPod(t)
	d := dropper(t, p.config)
	first := attached(t, d, p.target)
	began := countedSince(t, d, p.target.PodUID)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	pin := filepath.Join(d.folder(p.target.PodUID), bpf.DropMapCounters)
	other, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(pin), other.Pin(pin), other.Close()); err != nil {
		t.Fatal(err)
	}
	next := dropper(t, p.config)
	result := attached(t, next, p.target)
	if len(result.Hooks) != 5 || len(result.Shortfalls) != 1 || !strings.Contains(result.Shortfalls[0], "earlier version") {
		t.Errorf("Attach = %+v, want 5 hooks and the loss said", result)
	}
	p.quiet(t)
	hooks, err := next.Observe(p.target.PodUID)
	if err != nil || byID(hooks)["tcx-inside-2-2"].Packets == 0 {
		t.Errorf("the new maps count nothing: %+v, %v", hooks, err)
	}
	asAttached(t, next, p.target.PodUID, first.Hooks)
	if since := countedSince(t, next, p.target.PodUID); !since.After(began) || since.After(result.ContainedAt) {
		t.Errorf("counted since %v, before that since %v, contained at %v", since, began, result.ContainedAt)
	}
}

func TestSocketsBeyondMeasureAreCountedAndNotListed(t *testing.T) {
	var counts socketCounts
	counts.add("sockets: used 7\nTCP: inuse 3 orphan 0 tw 9999 alloc 8 mem 1\nUDP: inuse 2 mem 3\nUDPLITE: inuse 0\nRAW: inuse 4\n")
	counts.add("TCP6: inuse 1\nUDP6: inuse 5\nRAW6: inuse 1\n")
	if want := (socketCounts{tcp: 4, waiting: 9999, udp: 7}); counts != want {
		t.Errorf("counts %+v, want %+v", counts, want)
	}
}
