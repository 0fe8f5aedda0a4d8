package main

import (
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

func TestTagOf(t *testing.T) {
	for name, test := range map[string]struct {
		content []byte
		want    string
	}{
		"a message":        {message("udp"), "udp"},
		"a longest tag":    {message(strings.Repeat("x", maxTag)), strings.Repeat("x", maxTag)},
		"too long":         {[]byte(mark + strings.Repeat("x", maxTag+1) + "\n"), ""},
		"no mark":          {[]byte("udp\n"), ""},
		"no end":           {[]byte(mark + "udp"), ""},
		"two words":        {[]byte(mark + "u dp\n"), ""},
		"nothing":          {nil, ""},
		"what resolves":    {[]byte("resolve"), ""},
		"several messages": {append(message("a"), message("b")...), "a"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, ok := tagOf(test.content); got != test.want || ok != (test.want != "") {
				t.Errorf("tag %q, %t, want %q", got, ok, test.want)
			}
		})
	}
	if size := len(message("x")); size != messageSize {
		t.Errorf("a message has %d bytes, want %d", size, messageSize)
	}
}

func TestEveryKindArrives(t *testing.T) {
	for name, address := range map[string]string{"at the neighbour": nodeAddress, "behind it": behind} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			log := n.sink(t, n.node)
			var tags []string
			for _, kind := range slices.Sorted(maps.Keys(kinds())) {
				if kind == "sctp" && !supports(syscall.AF_INET, syscall.SOCK_STREAM, 132) {
					t.Log("not run: SCTP, which this kernel has not")
					continue
				}
				n.start(t, n.pod, "send", kind, address+":"+testPort, kind)
				tags = append(tags, kind)
			}
			found := await(t, log, tags...)
			if flood := found["flood"].bytes; flood < floodBlock {
				t.Errorf("%d bytes of the flood arrived, want at least a block of %d", flood, floodBlock)
			}
		})
	}
}

func TestLinkLocalSendersArrive(t *testing.T) {
	n := newNetwork(t)
	log := n.sink(t, n.node)
	address := nodeLocal + "%eth0"
	n.start(t, n.pod, "send", "udp", net.JoinHostPort(address, testPort), "udp6")
	n.start(t, n.pod, "send", "icmp", address, "icmp6")
	await(t, log, "udp6", "icmp6")
}

func TestSenderWaitsForItsDevice(t *testing.T) {
	n := newNetwork(t)
	log := n.sink(t, n.node)
	n.start(t, n.pod, "send", "udp", nodeAddress+":"+testPort, "free")
	n.start(t, n.pod, "send", "udp", nodeAddress+":"+testPort, "waits", "eth9")
	await(t, log, "free")
	time.Sleep(4 * slice)
	if found, err := readLog(log); err != nil || found["waits"].bytes != 0 {
		t.Fatalf("%d bytes arrived through a device that is not there (%v)", found["waits"].bytes, err)
	}
	pod := handle(t, n.pod)
	eth0, err := pod.LinkByName("eth0")
	must(t, err)
	must(t, pod.LinkSetDown(eth0))
	must(t, pod.LinkSetName(eth0, "eth9"))
	must(t, pod.LinkSetUp(eth0))
	await(t, log, "waits")
}

func TestPingLogsReplies(t *testing.T) {
	for name, test := range map[string]struct{ address, device string }{
		"version 4": {podAddress, "veth0"}, "version 6": {podLocal, "veth0"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			log := filepath.Join(n.folder, "replies")
			n.start(t, n.node, "ping", test.address, test.device, log)
			await(t, log, "reply")
		})
	}
}

// TestSinkTellsWhenTheKernelTook stops the receiver while a packet arrives.
func TestSinkTellsWhenTheKernelTook(t *testing.T) {
	for _, kind := range []string{"udp", "tcp"} {
		t.Run(kind, func(t *testing.T) {
			n := newNetwork(t)
			log := filepath.Join(n.folder, "arrivals")
			receiver := n.start(t, n.node, "sink", testPort, log)
			waitFor(t, log)
			sender := n.start(t, n.pod, "send", kind, nodeAddress+":"+testPort, kind)
			await(t, log, kind)
			must(t, receiver.Process.Signal(syscall.SIGSTOP))
			stopped := time.Now()
			time.Sleep(300 * time.Millisecond)
			must(t, sender.Process.Kill())
			time.Sleep(500 * time.Millisecond)
			resumed := time.Now()
			must(t, receiver.Process.Signal(syscall.SIGCONT))
			last := stopped.Add(-time.Nanosecond)
			for end := time.Now().Add(10 * time.Second); last.Before(stopped) && time.Now().Before(end); time.Sleep(slice) {
				found, err := readLog(log)
				must(t, err)
				last = found[kind].last
			}
			if last.After(resumed) || last.Before(stopped) {
				t.Errorf("the last packet is said to have come %s after the receiver stopped, which went on after %s",
					last.Sub(stopped), resumed.Sub(stopped))
			}
		})
	}
}

func TestHandedSocketsSend(t *testing.T) {
	n := newNetwork(t)
	log := n.sink(t, n.node)
	path := filepath.Join(n.folder, "hand")
	n.start(t, n.pod, "take", path)
	waitFor(t, path)
	giver := n.start(t, n.pod, "give", path, nodeAddress+":"+testPort)
	must(t, giver.Wait())
	await(t, log, "handed-tcp", "handed-udp")
}

func waitFor(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
	}
	t.Fatalf("%s does not appear", path)
}

// bomb runs a line of a shell that is process 1 of its own: whatever the probe forks ends with it.
func (n *network) bomb(t *testing.T, line string) {
	t.Helper()
	shell := exec.Command("sh", "-c", line, os.Args[0], nodeAddress+":"+testPort, strconv.Itoa(chains))
	shell.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	n.run(t, n.pod, shell)
}

// chains of the bombs that are tested.
const chains = 20

func TestBombIsBoundedAndMoves(t *testing.T) {
	n := newNetwork(t)
	log := n.sink(t, n.node)
	n.bomb(t, `exec "$0" bomb "$1" "$2" bomb`)
	await(t, log, "bomb")
	seen := map[int]bool{}
	most, quick := 0, 0
	for end := time.Now().Add(30 * time.Second); (len(seen) < 4*chains || quick < 20) && time.Now().Before(end); time.Sleep(linkLife) {
		began := time.Now()
		alive := processesIn(t, n.pod)
		// A list that takes longer than a link lives names its successors as well, however many.
		if time.Since(began) < linkLife {
			quick++
			most = max(most, len(alive))
		}
		maps.Copy(seen, alive)
	}
	// While the list is read some end and their successors are listed as well.
	if most > 4*chains || len(seen) < 4*chains || quick == 0 {
		t.Errorf("%d processes at a time in %d lists, %d altogether, want about %d at a time and many more altogether",
			most, quick, len(seen), chains)
	}
}

func TestBombEndsWithItsFirstProcess(t *testing.T) {
	n := newNetwork(t)
	log := n.sink(t, n.node)
	arrived := filepath.Join(n.folder, "arrived")
	n.bomb(t, `"$0" bomb "$1" "$2" bomb & until [ -e "`+arrived+`" ]; do sleep 0.1; done; kill -9 $!; exec sleep 100`)
	await(t, log, "bomb")
	must(t, os.WriteFile(arrived, nil, 0o600))
	left := 0
	for end := time.Now().Add(10 * time.Second); left != 1 && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		left = len(processesIn(t, n.pod))
	}
	if left != 1 {
		t.Errorf("%d processes are left, want that of the sleeping shell", left)
	}
}

func TestServeAnswersHealthy(t *testing.T) {
	n := newNetwork(t)
	n.start(t, n.pod, "serve", "8080")
	var answer []byte
	must(t, onThread(func() error {
		if err := netns.Set(n.pod); err != nil {
			return err
		}
		var err error
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			var client net.Conn
			if client, err = net.Dial("tcp", podAddress+":8080"); err == nil {
				answer, err = io.ReadAll(client)
				return err
			}
		}
		return err
	}))
	if !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK\r\n") {
		t.Errorf("the answer is %q", answer)
	}
}

func TestStrikeKillsWhenAFileAppears(t *testing.T) {
	n := newNetwork(t)
	victim := n.start(t, n.pod, "serve", "8080")
	killer := n.start(t, n.pod, "strike", filepath.Join(n.folder, "mark-*"), strconv.Itoa(victim.Process.Pid))
	time.Sleep(100 * time.Millisecond)
	must(t, victim.Process.Signal(syscall.Signal(0)))
	before := time.Now()
	must(t, os.WriteFile(filepath.Join(n.folder, "mark-1"), nil, 0o600))
	must(t, killer.Wait())
	if state, err := victim.Process.Wait(); err != nil || state.String() != "signal: killed" {
		t.Errorf("the victim ended with %v (%v)", state, err)
	}
	told, err := strconv.ParseInt(strings.TrimSpace(killer.said.String()), 10, 64)
	must(t, err)
	t.Logf("killed %s after the file was written", time.Unix(0, told).Sub(before))
}
