package drop

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/nodeagent/internal/proc"
)

// secret is what must not arrive.
const secret = "what must not get out"

// in runs a command in one of the test's namespaces.
func (p *pod) in(t *testing.T, name, line string) {
	t.Helper()
	run(t, "ip netns exec "+p.prefix+name+" "+line)
}

// onThread runs work in one of the test's namespaces.
func (p *pod) onThread(t *testing.T, name string, work func() error) {
	t.Helper()
	namespace, err := os.Open(p.netns(name))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(proc.Within(int(namespace.Fd()), unix.CLONE_NEWNET, work), namespace.Close()); err != nil {
		t.Fatal(err)
	}
}

func (p *pod) hardwareAddress(t *testing.T, name, device string) (address net.HardwareAddr) {
	t.Helper()
	p.onThread(t, name, func() error {
		found, err := net.InterfaceByName(device)
		if err == nil {
			address = found.HardwareAddr
		}
		return err
	})
	return address
}

// arrivals counts, until it is called, the frames with the secret that come in on a device.
func (p *pod) arrivals(t *testing.T, name, device string) (count func() int) {
	t.Helper()
	const everything = 0x0300 // ETH_P_ALL in network byte order
	var socket int
	p.onThread(t, name, func() error {
		found, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		if socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, everything); err != nil {
			return err
		}
		return unix.Bind(socket, &unix.SockaddrLinklayer{Ifindex: found.Index, Protocol: everything})
	})
	t.Cleanup(func() { _ = unix.Close(socket) })
	return func() (count int) {
		buffer := make([]byte, 4096)
		for {
			size, _, err := unix.Recvfrom(socket, buffer, 0)
			if err != nil {
				return count
			}
			if bytes.Contains(buffer[:size], []byte(secret)) {
				count++
			}
		}
	}
}

// sendFrames sends raw frames from the pod and tells nothing of those that are dropped.
func (p *pod) sendFrames(t *testing.T, frame []byte) {
	t.Helper()
	p.onThread(t, "pod", func() error {
		found, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		for range 50 {
			err := unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: found.Index})
			if err != nil && !errors.Is(err, unix.ENOBUFS) {
				return errors.Join(err, unix.Close(socket))
			}
		}
		return unix.Close(socket)
	})
}

// TestFramesQueuedOnAnIFBDoNotGetPast has the pod queue frames on an ifb device and then stop: the device sends them again
// marked, so that the node's side of the veth shows them to no program.
func TestFramesQueuedOnAnIFBDoNotGetPast(t *testing.T) {
	p := newPod(t)
	p.in(t, "pod", "ip link add ifb9 type ifb")
	p.in(t, "pod", "ip link set ifb9 up")
	p.in(t, "pod", "tc qdisc add dev ifb9 root tbf rate 40kbit burst 500 latency 900s")
	p.in(t, "pod", "tc qdisc add dev eth0 clsact")
	p.in(t, "pod", "tc filter add dev eth0 egress protocol ip u32 match ip protocol 17 0xff action mirred egress redirect dev ifb9")
	time.Sleep(time.Second)
	p.in(t, "pod", "tc filter del dev eth0 egress")
	if err := p.process.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.loud(t) // from the queue
	result := attached(t, dropper(t, p.config), p.target)
	if result.Level != v1alpha1.LevelFull {
		t.Errorf("Attach = %+v", result)
	}
	p.quiet(t)
}

func TestAnIFBIsAShortfallWhereThePodsSideHasNoHook(t *testing.T) {
	p := newPod(t)
	p.in(t, "pod", "ip link add ifb9 type ifb")
	d := dropper(t, p.config)
	d.device = v1alpha1.HookClsact
	if result := attached(t, d, p.target); result.Level != v1alpha1.LevelPartial || !strings.Contains(strings.Join(result.Shortfalls, ""), "ifb9") {
		t.Errorf("Attach = %+v", result)
	}
}

// TestAnXDPProgramInThePodIsAShortfall attaches one to a device that itself leads nowhere, after the pod was cut off: what it
// redirects to the device that leads out passes by the hooks.
func TestAnXDPProgramInThePodIsAShortfall(t *testing.T) {
	p := newPod(t)
	p.in(t, "pod", "ip link add x0 type veth peer name x1")
	d := dropper(t, p.config)
	if result := attached(t, d, p.target); result.Level != v1alpha1.LevelFull {
		t.Fatalf("without XDP: Attach = %+v", result)
	}
	detach := p.attachXDP(t, "x1")
	inode, err := inodeAt(p.netns("pod"))
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("device x1 in network namespace %d of the pod has an XDP program", inode)
	result := attached(t, d, p.target)
	if result.Level != v1alpha1.LevelPartial || len(result.Shortfalls) != 1 || !strings.Contains(result.Shortfalls[0], want) {
		t.Errorf("Attach = %+v, want one shortfall: %s", result, want)
	}
	detach()
	if result := attached(t, d, p.target); result.Level != v1alpha1.LevelFull {
		t.Errorf("without XDP again: Attach = %+v", result)
	}
}

// attachXDP attaches a program that lets everything pass to a device in the pod, until it is called.
func (p *pod) attachXDP(t *testing.T, device string) (detach func()) {
	t.Helper()
	const pass = 2 // XDP_PASS
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, pass), asm.Return()}, License: "GPL",
	})
	if err != nil {
		t.Fatal(err)
	}
	var made link.Link
	p.onThread(t, "pod", func() error {
		found, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		made, err = link.AttachXDP(link.XDPOptions{Program: program, Interface: found.Index, Flags: link.XDPGenericMode})
		return err
	})
	return func() {
		if err := errors.Join(made.Close(), program.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestADeviceThatWasHiddenIsAShortfall(t *testing.T) {
	p := newPod(t)
	if err := p.process.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	run(t, "ip netns add "+p.prefix+"hidden")
	t.Cleanup(func() { run(t, "ip netns del "+p.prefix+"hidden") })
	run(t, "ip -n "+p.prefix+"pod link set eth0 netns "+p.prefix+"hidden")
	result := attached(t, dropper(t, p.config), p.target)
	if result.Level != v1alpha1.LevelPartial || !strings.Contains(strings.Join(result.Shortfalls, ""), "no device leads from the pod") {
		t.Errorf("Attach = %+v", result)
	}
}

func TestNeighbourDiscoveryOfARunningPodIsNotRouted(t *testing.T) {
	p := newPod(t)
	p.in(t, "node", "sysctl -qw net.ipv6.conf.all.forwarding=1")
	p.in(t, "node", "ip addr add fd00:1::1/64 dev vpod nodad")
	p.in(t, "node", "ip addr add fd00:2::1/64 dev vout nodad")
	p.in(t, "pod", "ip addr add fd00:1::2/64 dev eth0 nodad")
	p.in(t, "out", "ip addr add fd00:2::2/64 dev eth0 nodad")
	frame := append(append(p.hardwareAddress(t, "node", "vpod"), p.hardwareAddress(t, "pod", "eth0")...), 0x86, 0xdd)
	body := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, secret...)
	frame = append(frame, 0x60, 0, 0, 0, 0, byte(len(body)), 58, 255)
	frame = append(append(frame, net.ParseIP("fd00:1::2").To16()...), net.ParseIP("fd00:2::2").To16()...)
	frame = append(frame, body...)
	count := p.arrivals(t, "out", "eth0")
	p.sendFrames(t, frame)
	eventually(t, "a frame that is routed arrives before the drop", func() bool { return count() > 0 })
	p.target.Running = true
	attached(t, dropper(t, p.config), p.target)
	time.Sleep(200 * time.Millisecond)
	count()
	p.sendFrames(t, frame)
	time.Sleep(500 * time.Millisecond)
	if got := count(); got != 0 {
		t.Errorf("%d frames were routed", got)
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("not seen: %s", what)
}

// TestAProbeIsNoWayToAnotherPod puts the pod and another on one bridge: what the pod sends as part of a probe of the kubelet
// goes to the node alone.
func TestAProbeIsNoWayToAnotherPod(t *testing.T) {
	p := newPod(t)
	run(t, "ip netns add "+p.prefix+"mate")
	t.Cleanup(func() { run(t, "ip netns del "+p.prefix+"mate") })
	for _, line := range []string{
		"link add br0 type bridge", "link set br0 up", "addr del " + nodeAddress + "/24 dev vpod", "link set vpod master br0",
		"addr add " + nodeAddress + "/24 dev br0", "link add vmate type veth peer name eth0 netns " + p.prefix + "mate",
		"link set vmate master br0", "link set vmate up",
	} {
		run(t, "ip -n "+p.prefix+"node "+line)
	}
	p.in(t, "mate", "ip link set eth0 up")
	p.in(t, "pod", "ip neigh flush dev eth0")
	p.target.Running, p.target.KubeletCgroup, p.target.Probe = true, ownCgroup(t), true
	if result := attached(t, dropper(t, p.config), p.target); result.Level != v1alpha1.LevelFull {
		t.Fatalf("Attach = %+v", result)
	}
	var port int
	eventually(t, "a probe gets through", func() bool {
		return p.onNode(t, func() error {
			connection, err := net.DialTimeout("tcp4", podAddress+":"+servedPort, time.Second)
			if err != nil {
				return err
			}
			if local, is := connection.LocalAddr().(*net.TCPAddr); is {
				port = local.Port
			}
			_, err = io.ReadAll(connection)
			return errors.Join(err, connection.Close())
		}) == nil
	})
	count := p.arrivals(t, "mate", "eth0")
	p.sendFrames(t, p.answer(t, p.hardwareAddress(t, "mate", "eth0"), port))
	time.Sleep(500 * time.Millisecond)
	if got := count(); got != 0 {
		t.Errorf("%d frames reached another pod", got)
	}
}

// answer is a frame of the probed connection with the secret in it.
func (p *pod) answer(t *testing.T, to net.HardwareAddr, port int) []byte {
	t.Helper()
	ip := make([]byte, 20)
	ip[0], ip[8], ip[9] = 0x45, 64, 6
	binary.BigEndian.PutUint16(ip[2:], uint16(40+len(secret))) // #nosec G115 -- short
	copy(ip[12:], net.ParseIP(podAddress).To4())
	copy(ip[16:], net.ParseIP(nodeAddress).To4())
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp, 9003)
	binary.BigEndian.PutUint16(tcp[2:], uint16(port)) // #nosec G115 -- a port
	tcp[12], tcp[13] = 0x50, 0x10
	frame := append(append([]byte{}, to...), p.hardwareAddress(t, "pod", "eth0")...)
	frame = append(append(frame, 0x08, 0x00), ip...)
	return append(append(frame, tcp...), secret...)
}

// TestLoopbackOfAPodInTheNodesNetworkIsCutOff: what is loopback inside another pod is the node's own there.
func TestLoopbackOfAPodInTheNodesNetworkIsCutOff(t *testing.T) {
	p := newPod(t)
	p.config.NodeNetns = p.netns("pod") // the pod is in the node's network
	reach := func() (string, error) {
		folder, err := os.Open(p.target.Cgroup)
		if err != nil {
			t.Fatal(err)
		}
		command := exec.Command("ip", "netns", "exec", p.prefix+"pod", "timeout", "2", "bash", "-c", "cat </dev/tcp/127.0.0.1/"+servedPort)
		command.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(folder.Fd())}
		out, err := command.Output()
		return string(out), errors.Join(err, folder.Close())
	}
	if got, err := reach(); err != nil || got != served {
		t.Fatalf("before the drop: %q, %v", got, err)
	}
	p.target.Running = true
	if result := attached(t, dropper(t, p.config), p.target); result.Level != v1alpha1.LevelPartial {
		t.Errorf("Attach = %+v", result)
	}
	if got, err := reach(); err == nil || got != "" {
		t.Errorf("the node's loopback answers %q", got)
	}
}

// TestANetworkOfAnotherPodIsLeftAlone has processes of the pod in the network of another pod: one of them, or, as where one
// may trace the others and the sandbox's, all. What one of them sends from a socket of the pod's own network is cut off.
func TestANetworkOfAnotherPodIsLeftAlone(t *testing.T) {
	for name, all := range map[string]bool{"one": false, "all": true} {
		t.Run(name, func(t *testing.T) { leftAlone(t, all) })
	}
}

func leftAlone(t *testing.T, all bool) {
	t.Helper()
	p := newPod(t)
	joined := p.inNetwork(t, "out")
	foreign, err := inodeAt(p.netns("out"))
	if err != nil {
		t.Fatal(err)
	}
	p.target.Processes = append(p.target.Processes, joined)
	if all {
		p.target.Processes = []int{joined}
	}
	asked := 0
	p.target.Others = func() (map[uint64]bool, error) {
		asked++
		return map[uint64]bool{foreign: true}, nil
	}
	want := []string{"a process of the pod is in the network of another pod, which is not cut off"}
	result := attached(t, dropper(t, p.config), p.target)
	if diff := cmp.Diff(want, result.Shortfalls); diff != "" || result.Level != v1alpha1.LevelPartial || len(result.Hooks) != 5 || asked != 1 {
		t.Errorf("Attach = %+v, asked %d times, shortfalls (-want +got):\n%s", result, asked, diff)
	}
	p.quiet(t)
}

// TestANetworkThatTheRuntimeDoesNotTellIsAShortfall has one whose path is not known, one that was taken down, one that cannot
// be opened, and the node's.
func TestANetworkThatTheRuntimeDoesNotTellIsAShortfall(t *testing.T) {
	p := newPod(t)
	p.target.Others = func() (map[uint64]bool, error) { return nil, nil }
	d := dropper(t, p.config)
	for name, tt := range map[string]struct {
		networks []string
		want     string
	}{
		"no path":         {nil, "the runtime does not tell which network is the pod's"},
		"taken down":      {[]string{p.netns("none")}, p.netns("none")},
		"not to be found": {[]string{p.netns("pod") + "/below"}, p.netns("pod") + "/below"},
	} {
		p.target.Networks = tt.networks
		result := attached(t, d, p.target)
		if result.Level != v1alpha1.LevelPartial || len(result.Hooks) != 5 || len(result.Shortfalls) != 1 || !strings.Contains(result.Shortfalls[0], tt.want) {
			t.Errorf("%s: Attach = %+v", name, result)
		}
	}
	p.target.Networks = []string{p.netns("node"), p.netns("pod")}
	if result := attached(t, d, p.target); result.Level != v1alpha1.LevelFull || len(result.Hooks) != 5 {
		t.Errorf("with the node's: Attach = %+v", result)
	}
	p.quiet(t)
}

// TestNetworksKnownToBeOthersAreLeftAloneWhereNotAllAre has one sandbox of the node that cannot be told.
func TestNetworksKnownToBeOthersAreLeftAloneWhereNotAllAre(t *testing.T) {
	p := newPod(t)
	p.target.Processes = append(p.target.Processes, p.inNetwork(t, "out"))
	foreign, err := inodeAt(p.netns("out"))
	if err != nil {
		t.Fatal(err)
	}
	p.target.Others = func() (map[uint64]bool, error) {
		return map[uint64]bool{foreign: true}, errors.New("sandbox s9 does not tell")
	}
	result := attached(t, dropper(t, p.config), p.target)
	if said := strings.Join(result.Shortfalls, "; "); len(result.Hooks) != 5 || !strings.Contains(said, "s9") || !strings.Contains(said, "another pod") {
		t.Errorf("Attach = %+v", result)
	}
}

func TestAnIngressQdiscInThePlaceOfClsactIsAShortfall(t *testing.T) {
	p := newPod(t)
	p.in(t, "node", "tc qdisc add dev vpod ingress")
	d := dropper(t, p.config)
	d.device = v1alpha1.HookClsact
	for range 2 {
		if result := attached(t, d, p.target); result.Level != v1alpha1.LevelPartial || len(result.Hooks) != 2 {
			t.Errorf("Attach = %+v", result)
		}
	}
}

// TestAReleaseFindsAFilterThatAnEarlierStartDidNotGetToPin leaves the pin of the program before.
func TestAReleaseFindsAFilterThatAnEarlierStartDidNotGetToPin(t *testing.T) {
	p := newPod(t)
	d := dropper(t, p.config)
	d.device = v1alpha1.HookClsact
	attached(t, d, p.target)
	folder, kept := d.folder(p.target.PodUID), map[string]string{}
	for _, id := range []string{"clsact-ingress-2", "clsact-egress-2"} {
		kept[id] = filepath.Join(p.config.BPFFS, "old-"+id)
		if err := os.Rename(filepath.Join(folder, id), kept[id]); err != nil {
			t.Fatal(err)
		}
	}
	p.target.Running = true
	attached(t, d, p.target)
	for id, old := range kept {
		if err := errors.Join(os.Remove(filepath.Join(folder, id)), os.Rename(old, filepath.Join(folder, id))); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Detach(p.target.PodUID); err != nil {
		t.Fatal(err)
	}
	p.loud(t)
}
