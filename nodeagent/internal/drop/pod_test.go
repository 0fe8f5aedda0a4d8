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
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/internal/testneeds"
	"ugallu.io/forensics/nodeagent/internal/proc"
)

// Addresses of the test's three network namespaces: a pod, its node, and a receiver outside of both.
const (
	podAddress     = "10.123.1.2"
	nodeAddress    = "10.123.1.1"
	outsideAddress = "10.123.2.2"
	senderVariable = "DROP_TEST_SENDER"
	servedPort     = "9003"
	served         = "healthy"
)

// TestMain turns the test binary into a pod's process when it is started as one.
func TestMain(m *testing.M) {
	if target := os.Getenv(senderVariable); target != "" {
		if err := send(target); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func run(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
}

// pod is a process that sends on an established stream and raw frames, and what of it arrives outside.
type pod struct {
	target  Target
	config  Config
	process *exec.Cmd
	prefix  string
	stream  atomic.Int64 // bytes of the established stream that arrived
	raw     atomic.Int64 // raw frames that arrived
}

func newPod(t *testing.T) *pod {
	t.Helper()
	testneeds.That(t, os.Geteuid() == 0, "making network namespaces needs root")
	p := &pod{prefix: fmt.Sprintf("d%d-", os.Getpid())}
	p.network(t)
	p.receive(t)
	p.mountBPF(t)
	p.start(t, p.cgroup(t))
	for range 6000 { // 30 s at least
		if p.stream.Load() > 0 && p.raw.Load() > 0 {
			return p
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("nothing arrives before the drop: %d bytes, %d raw frames", p.stream.Load(), p.raw.Load())
	return nil
}

func (p *pod) netns(name string) string { return "/var/run/netns/" + p.prefix + name }

func (p *pod) network(t *testing.T) {
	t.Helper()
	for _, name := range []string{"pod", "node", "out"} {
		run(t, "ip netns add "+p.prefix+name)
		t.Cleanup(func() { run(t, "ip netns del "+p.prefix+name) })
		run(t, "ip -n "+p.prefix+name+" link set lo up")
	}
	in := func(name, line string) { run(t, "ip -n "+p.prefix+name+" "+line) }
	in("node", "link add vpod type veth peer name eth0 netns "+p.prefix+"pod")
	in("node", "link add vout type veth peer name eth0 netns "+p.prefix+"out")
	in("node", "addr add "+nodeAddress+"/24 dev vpod")
	in("node", "addr add 10.123.2.1/24 dev vout")
	in("node", "link set vpod up")
	in("node", "link set vout up")
	in("pod", "addr add "+podAddress+"/24 dev eth0")
	in("pod", "link set eth0 up")
	in("pod", "route add default via "+nodeAddress)
	in("out", "addr add "+outsideAddress+"/24 dev eth0")
	in("out", "link set eth0 up")
	in("out", "route add default via 10.123.2.1")
	run(t, "ip netns exec "+p.prefix+"node sysctl -qw net.ipv4.ip_forward=1")
	p.config.NodeNetns, p.config.NodeRoot = p.netns("node"), "/"
}

// receive counts what arrives at the outside address: sockets stay in the namespace that they are made in.
func (p *pod) receive(t *testing.T) {
	t.Helper()
	namespace, err := os.Open(p.netns("out"))
	if err != nil {
		t.Fatal(err)
	}
	var listener net.Listener
	var datagrams net.PacketConn
	err = proc.Within(int(namespace.Fd()), unix.CLONE_NEWNET, func() (err error) {
		if listener, err = net.Listen("tcp4", outsideAddress+":9001"); err != nil {
			return err
		}
		datagrams, err = net.ListenPacket("udp4", outsideAddress+":9002")
		return err
	})
	if err = errors.Join(err, namespace.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = listener.Close(), datagrams.Close() })
	go func() {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		buffer := make([]byte, 4096)
		for {
			n, err := connection.Read(buffer)
			p.stream.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	go func() {
		buffer := make([]byte, 2048)
		for {
			if _, _, err := datagrams.ReadFrom(buffer); err != nil {
				return
			}
			p.raw.Add(1)
		}
	}()
}

func (p *pod) mountBPF(t *testing.T) {
	t.Helper()
	p.config.BPFFS, p.config.NodeMountns = t.TempDir(), "/proc/self/ns/mnt"
	t.Cleanup(func() {
		if err := unix.Unmount(p.config.BPFFS, 0); err != nil {
			t.Errorf("unmount the bpf file system: %v", err)
		}
	})
}

func (p *pod) cgroup(t *testing.T) string {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		var stat unix.Statfs_t
		if unix.Statfs(root, &stat) != nil || stat.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		folder := filepath.Join(root, p.prefix+"pod")
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Remove(folder); err != nil {
				t.Error(err)
			}
		})
		return folder
	}
	testneeds.That(t, false, "no cgroup2 is mounted")
	return ""
}

func (p *pod) start(t *testing.T, cgroup string) {
	t.Helper()
	mac, err := exec.Command("ip", "netns", "exec", p.prefix+"node", "cat", "/sys/class/net/vpod/address").Output()
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	// ip execs the program, so the process stays the same.
	p.process = exec.Command("ip", "netns", "exec", p.prefix+"pod", os.Args[0]) // #nosec G204 -- the test itself
	p.process.Env = append(os.Environ(), senderVariable+"="+strings.TrimSpace(string(mac)))
	p.process.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(folder.Fd())}
	p.process.Stderr = os.Stderr
	if err := errors.Join(p.process.Start(), folder.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.process.Process.Kill()
		_ = p.process.Wait()
	})
	p.target = Target{PodUID: "6f1c6a2e-0000-4000-8000-000000000001", Cgroup: cgroup, Networks: []string{p.netns("pod")}, Processes: []int{p.process.Process.Pid}}
}

// settle waits for what had passed before and is still on its way to its reader, for a while: what goes on for longer is
// seen by quiet.
func (p *pod) settle() {
	last, calm := int64(-1), 0
	for rounds := 0; rounds < 60 && calm < 6; rounds++ {
		now := p.stream.Load() + p.raw.Load()
		if calm++; now != last {
			calm = 0
		}
		last = now
		time.Sleep(25 * time.Millisecond)
	}
}

// quiet fails the test when anything arrives outside within a while.
func (p *pod) quiet(t *testing.T) {
	t.Helper()
	p.settle()
	stream, raw := p.stream.Load(), p.raw.Load()
	time.Sleep(300 * time.Millisecond)
	if more := p.stream.Load() - stream; more != 0 {
		t.Errorf("%d bytes of the established stream arrived", more)
	}
	if more := p.raw.Load() - raw; more != 0 {
		t.Errorf("%d raw frames arrived", more)
	}
}

// loud fails the test when no raw frame arrives outside.
func (p *pod) loud(t *testing.T) {
	t.Helper()
	raw := p.raw.Load()
	for range 6000 { // 30 s at least
		if p.raw.Load() > raw {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("no raw frame arrives")
}

// send is the pod's process: it writes on one TCP connection and sends raw frames past the socket layer, until it is killed.
func send(nodeMAC string) error {
	connection, err := net.Dial("tcp4", outsideAddress+":9001")
	if err != nil {
		return err
	}
	go func() {
		for {
			if _, err := io.WriteString(connection, "x"); err != nil {
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
	}()
	if err := serve(); err != nil {
		return err
	}
	device, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	destination, err := net.ParseMAC(nodeMAC)
	if err != nil {
		return err
	}
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	frame := rawFrame(destination, device.HardwareAddr)
	for {
		// The kernel tells the sender of a frame that was dropped on its own side of the device.
		err := unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: device.Index})
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// serve answers whoever connects to the pod, as to a probe.
func serve() error {
	listener, err := net.Listen("tcp4", ":"+servedPort)
	if err != nil {
		return err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(connection, served)
			_ = connection.Close()
		}
	}()
	return nil
}

// rawFrame is an Ethernet frame with an IPv4 UDP datagram to the outside address, port 9002.
func rawFrame(destination, source net.HardwareAddr) []byte {
	var b bytes.Buffer
	b.Write(destination)
	b.Write(source)
	b.Write([]byte{0x08, 0x00})
	header := []byte{0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0}
	header = append(header, net.ParseIP(podAddress).To4()...)
	header = append(header, net.ParseIP(outsideAddress).To4()...)
	sum := uint32(0)
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(header[10:], ^uint16(sum+sum>>16))
	b.Write(header)
	b.Write([]byte{0x23, 0x28, 0x23, 0x2a, 0, 9, 0, 0, 'x'}) // ports 9000 to 9002, length 9, no checksum
	return b.Bytes()
}
