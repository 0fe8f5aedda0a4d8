package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/internal/testneeds"
)

// probeVariable makes the test binary the probe.
const probeVariable = "PROBE_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(probeVariable) == "" {
		os.Exit(m.Run())
	}
	main()
}

// Addresses of the two namespaces; behind is one that the pod reaches only through the node, as it reaches every other
// pod of a cluster.
const (
	podAddress  = "10.77.0.2"
	nodeAddress = "10.77.0.1"
	behind      = "10.78.0.1"
	podLocal    = "fe80::2"
	nodeLocal   = "fe80::1"
	testPort    = "9000"
)

// network is two network namespaces with a veth pair: eth0 in the pod, veth0 on the node.
type network struct {
	folder    string
	pod, node netns.NsHandle
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	testneeds.That(t, os.Geteuid() == 0, "network namespaces need root")
	n := &network{folder: t.TempDir(), pod: newNamespace(t), node: newNamespace(t)}
	pod, node := handle(t, n.pod), handle(t, n.node)
	must(t, pod.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "veth0", PeerNamespace: netlink.NsFd(int(n.node)),
	}))
	give := func(at *netlink.Handle, device string, addresses ...string) {
		link, err := at.LinkByName(device)
		must(t, err)
		for _, address := range addresses {
			parsed, err := netlink.ParseAddr(address)
			must(t, err)
			parsed.Flags = unix.IFA_F_NODAD
			must(t, at.AddrAdd(link, parsed))
		}
		must(t, at.LinkSetUp(link))
	}
	give(pod, "lo")
	give(node, "lo", behind+"/32")
	give(pod, "eth0", podAddress+"/24", podLocal+"/64")
	give(node, "veth0", nodeAddress+"/24", nodeLocal+"/64")
	must(t, pod.RouteAdd(&netlink.Route{Gw: net.ParseIP(nodeAddress)}))
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func handle(t *testing.T, namespace netns.NsHandle) *netlink.Handle {
	t.Helper()
	opened, err := netlink.NewHandleAt(namespace)
	must(t, err)
	t.Cleanup(opened.Close)
	return opened
}

// onThread runs work on a thread that ends with it.
func onThread(work func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- work()
	}()
	return <-done
}

func newNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	var made netns.NsHandle
	must(t, onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		// Every version of ping's sockets is for everybody here, as it is in a pod.
		if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0); err != nil {
			return err
		}
		made, err = netns.Get()
		return err
	}))
	t.Cleanup(func() { must(t, made.Close()) })
	return made
}

// running is the probe in a namespace.
type running struct {
	*exec.Cmd
	said bytes.Buffer
}

// start runs the probe in a namespace until the test ends; what it said is told when the test fails.
func (n *network) start(t *testing.T, namespace netns.NsHandle, arguments ...string) *running {
	t.Helper()
	return n.run(t, namespace, exec.Command(os.Args[0], arguments...))
}

// run runs a command, such as one that runs the probe, in a namespace until the test ends.
func (n *network) run(t *testing.T, namespace netns.NsHandle, command *exec.Cmd) *running {
	t.Helper()
	started := &running{Cmd: command}
	started.Env = append(os.Environ(), probeVariable+"=1")
	started.Stdout, started.Stderr = &started.said, &started.said
	must(t, onThread(func() error {
		return errors.Join(netns.Set(namespace), started.Start())
	}))
	t.Cleanup(func() {
		_ = started.Process.Kill()
		_ = started.Wait()
		if t.Failed() {
			t.Logf("%s said: %s", strings.Join(command.Args, " "), started.said.String())
		}
	})
	return started
}

func (n *network) sink(t *testing.T, namespace netns.NsHandle) (log string) {
	t.Helper()
	log = filepath.Join(n.folder, "arrivals")
	n.start(t, namespace, "sink", testPort, log)
	waitFor(t, log) // it is made when all sockets are
	return log
}

// logged is what a log says of one tag: when the last of it came, and how many bytes in all.
type logged struct {
	last  time.Time
	bytes int
}

func readLog(path string) (map[string]logged, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	content = content[:bytes.LastIndexByte(content, '\n')+1] // the last line may be in the middle of being written
	found := map[string]logged{}
	lines := bufio.NewScanner(bytes.NewReader(content))
	for lines.Scan() {
		var last int64
		var tag string
		var total int
		if _, err := fmt.Sscan(lines.Text(), &last, &tag, &total); err != nil {
			return nil, fmt.Errorf("line %q: %w", lines.Text(), err)
		}
		found[tag] = logged{last: time.Unix(0, last), bytes: total}
	}
	return found, lines.Err()
}

// await waits until every tag has arrived and returns what is logged then.
func await(t *testing.T, log string, tags ...string) map[string]logged {
	t.Helper()
	var missing []string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(slice) {
		found, err := readLog(log)
		must(t, err)
		missing = missing[:0]
		for _, tag := range tags {
			if found[tag].bytes == 0 {
				missing = append(missing, tag)
			}
		}
		if len(missing) == 0 {
			return found
		}
	}
	t.Fatalf("nothing arrived of %s", strings.Join(missing, ", "))
	return nil
}

// processesIn lists the processes of a network namespace by their ids, zombies left out.
func processesIn(t *testing.T, namespace netns.NsHandle) map[int]bool {
	t.Helper()
	var want unix.Stat_t
	must(t, unix.Fstat(int(namespace), &want))
	entries, err := os.ReadDir("/proc")
	must(t, err)
	found := map[int]bool{}
	for _, entry := range entries {
		process, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		var has unix.Stat_t
		if unix.Stat(filepath.Join("/proc", entry.Name(), "ns/net"), &has) == nil && has.Ino == want.Ino {
			found[process] = true
		}
	}
	return found
}
