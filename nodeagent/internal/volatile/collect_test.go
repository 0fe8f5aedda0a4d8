package volatile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// stream is a parsed one.
type stream struct {
	header    evidence.VolatileHeader
	networks  []evidence.VolatileNetwork
	processes map[int]evidence.VolatileProcess
	trailer   evidence.VolatileTrailer
	kinds     []evidence.VolatileKind
	result    Result
	gaps      []evidence.GapLine
}

// collect runs Collect and reads back what it wrote, as a stranger would.
func collect(t testing.TB, target Target, options Options) stream {
	t.Helper()
	var out, gaps bytes.Buffer
	options.Gaps = &gaps
	options.NodeNetwork = "/proc/self/ns/net"
	result, err := Collect(t.Context(), &out, target, options)
	must(t, err)
	if int64(out.Len()) != result.Bytes || evidence.Digest(out.Bytes()) != result.SHA256 {
		t.Errorf("the stream has %d bytes and sha256 %s, the result says %d and %s",
			out.Len(), evidence.Digest(out.Bytes()), result.Bytes, result.SHA256)
	}
	s := stream{result: result, processes: map[int]evidence.VolatileProcess{}}
	for line := range bytes.Lines(out.Bytes()) {
		s.line(t, line)
	}
	for line := range bytes.Lines(gaps.Bytes()) {
		var gap evidence.GapLine
		must(t, json.Unmarshal(line, &gap))
		s.gaps = append(s.gaps, gap)
	}
	return s
}

func (s *stream) line(t testing.TB, line []byte) {
	t.Helper()
	var kind struct{ Kind evidence.VolatileKind }
	must(t, json.Unmarshal(line, &kind))
	s.kinds = append(s.kinds, kind.Kind)
	strict := json.NewDecoder(bytes.NewReader(line))
	strict.DisallowUnknownFields()
	switch kind.Kind {
	case evidence.VolatileKindHeader:
		must(t, strict.Decode(&s.header))
		canonical(t, line, s.header)
	case evidence.VolatileKindNetwork:
		var network evidence.VolatileNetwork
		must(t, strict.Decode(&network))
		canonical(t, line, network)
		s.networks = append(s.networks, network)
	case evidence.VolatileKindProcess:
		var process evidence.VolatileProcess
		must(t, strict.Decode(&process))
		canonical(t, line, process)
		s.processes[process.PID] = process
	case evidence.VolatileKindTrailer:
		must(t, strict.Decode(&s.trailer))
		canonical(t, line, s.trailer)
	default:
		t.Errorf("unknown kind %q", kind.Kind)
	}
}

// canonical proves that nothing is lost between record and line.
func canonical(t testing.TB, line []byte, record any) {
	t.Helper()
	again, err := evidence.Canonical(record)
	must(t, err)
	if !bytes.Equal(append(again, '\n'), line) {
		t.Errorf("a record does not come back as it was:\n%s\n%s", line, again)
	}
}

func (s stream) network(t testing.TB, inode uint64) evidence.VolatileNetwork {
	t.Helper()
	for _, network := range s.networks {
		if network.Namespace == inode {
			return network
		}
	}
	t.Fatalf("no record of network namespace %d", inode)
	return evidence.VolatileNetwork{}
}

func startTicks(t testing.TB, pid int) uint64 {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	stat, err := parseStat(string(content))
	must(t, err)
	return stat.started
}

func namespaceInode(t testing.TB, pid int, name string) uint64 {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
	must(t, err)
	inode, err := inodeOf(link)
	must(t, err)
	return inode
}

func TestCollectSaysWhoAProcessIs(t *testing.T) {
	a := start(t, "wait", func(command *exec.Cmd) {
		command.SysProcAttr.Cloneflags = unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUSER
		command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
		command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 200000, Size: 65536}}
		command.SysProcAttr.GidMappingsEnableSetgroups = true
		command.SysProcAttr.Credential = &syscall.Credential{Uid: 7, Gid: 8, Groups: []uint32{9, 10}}
		// Other users cannot reach the folder that this program lies in.
		me, err := os.Open("/proc/self/exe")
		must(t, err)
		t.Cleanup(func() { must(t, me.Close()) })
		command.ExtraFiles, command.Path = []*os.File{me}, "/proc/self/fd/3"
		command.Args = []string{"evil\xff\xfe", "", "--flag=1"}
	})
	s := collect(t, a.target(), Options{})
	pid := a.Process.Pid
	p := s.processes[pid]
	if p.StartTicks != startTicks(t, pid) || p.StartedAt == nil || time.Since(*p.StartedAt).Abs() > time.Minute {
		t.Errorf("started at %d, %v", p.StartTicks, p.StartedAt)
	}
	type view struct {
		PIDs        []int
		Parent      int
		Container   string
		Argv        []evidence.Text
		Comm        evidence.Text
		UIDs        evidence.VolatileIDs
		GIDs        evidence.VolatileIDs
		Groups      []uint32
		UIDMap      []evidence.VolatileIDMapping
		GIDMap      []evidence.VolatileIDMapping
		Ended       bool
		MapsTotal   bool
		Resident    bool
		ThreadsRead bool
	}
	all := func(id uint32) evidence.VolatileIDs {
		return evidence.VolatileIDs{Real: id, Effective: id, Saved: id, Filesystem: id}
	}
	got := view{
		p.NamespacePIDs, p.Parent, p.ContainerID, p.Argv, p.Comm, p.Credentials.UIDs, p.Credentials.GIDs, p.Credentials.Groups,
		p.UIDMap, p.GIDMap, p.Ended, p.MapsTotal == len(p.Maps) && p.MapsTotal > 5, p.Memory != nil && p.Memory.Resident > 0,
		p.ThreadsTotal == len(p.Threads) && p.ThreadsTotal > 1,
	}
	want := view{
		[]int{pid, 1},
		os.Getpid(), "c1",
		[]evidence.Text{"evil\xff\xfe", "", "--flag=1"},
		"3", all(100007), all(200008),
		[]uint32{200009, 200010},
		[]evidence.VolatileIDMapping{{Outside: 100000, Count: 65536}},
		[]evidence.VolatileIDMapping{{Outside: 200000, Count: 65536}},
		false, true, true, true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, inode := range map[string]uint64{
		"net": p.Namespaces.Network, "pid": p.Namespaces.PID, "mnt": p.Namespaces.Mount, "user": p.Namespaces.User,
		"uts": p.Namespaces.UTS, "ipc": p.Namespaces.IPC, "cgroup": p.Namespaces.Cgroup,
	} {
		if inode != namespaceInode(t, pid, name) {
			t.Errorf("namespace %s = %d", name, inode)
		}
	}
	if p.Credentials.Capabilities.Bounding == "" || p.Credentials.Capabilities.Ambient == "" || len(p.Cgroups) == 0 {
		t.Errorf("credentials %+v, cgroups %q", p.Credentials.Capabilities, p.Cgroups)
	}
	if len(s.gaps) != 0 || len(p.Missing) != 0 {
		t.Errorf("gaps %+v, missing %+v", s.gaps, p.Missing)
	}
}

func TestCollectIsOneHeaderTheRecordsAndOneTrailer(t *testing.T) {
	a, b := start(t, "wait", nil), start(t, "wait", namespaces(unix.CLONE_NEWNET))
	s := collect(t, targetOf(a.Process.Pid, b.Process.Pid), Options{})
	want := []evidence.VolatileKind{"header", "network", "network", "process", "process", "trailer"}
	if diff := cmp.Diff(want, s.kinds); diff != "" {
		t.Error(diff)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	must(t, err)
	if s.header.Clocks.BootID != strings.TrimSpace(string(boot)) || s.header.PodUID != "pod-1" || s.header.Kernel.Release == "" {
		t.Errorf("header %+v", s.header)
	}
	if s.header.Clocks.BoottimeNanos <= 0 || s.trailer.Clocks.BoottimeNanos < s.header.Clocks.BoottimeNanos {
		t.Errorf("clocks %+v, then %+v", s.header.Clocks, s.trailer.Clocks)
	}
	if s.trailer.Records != 5 || s.trailer.Processes != 2 || s.trailer.Networks != 2 || s.trailer.Truncated {
		t.Errorf("trailer %+v", s.trailer)
	}
	if s.processes[b.Process.Pid].MountsSameAs != a.Process.Pid || len(s.processes[a.Process.Pid].Mounts) == 0 {
		t.Error("the mounts of a shared namespace are not told once")
	}
}

func TestCollectRedactsTheEnvironmentAndKeepsHashes(t *testing.T) {
	a := start(t, "wait", func(command *exec.Cmd) {
		command.Env = append(command.Env, "NOTE\xff=raw\xfe", "API_TOKEN=abc", "without equals sign")
	})
	values := map[string]string{
		roleVariable: "wait", "PASSWORD": "open sesame", "HOME": "/root", "GOMAXPROCS": "2", "NOTE\xff": "raw\xfe",
		"API_TOKEN": "abc", "": "without equals sign",
	}
	tests := map[string]struct {
		options  Options
		redacted []string
	}{
		"none": {Options{}, nil},
		"matching": {
			Options{RedactEnvironment: RedactMatching, RedactNames: regexp.MustCompile(`TOKEN|PASS|without`)},
			[]string{"", "API_TOKEN", "PASSWORD"},
		},
		"all": {Options{RedactEnvironment: RedactAll}, []string{"", "API_TOKEN", "GOMAXPROCS", "HOME", "NOTE\xff", "PASSWORD", roleVariable}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := collect(t, a.target(), test.options).processes[a.Process.Pid].Environment
			if len(got) != len(values) {
				t.Errorf("%d variables: %+v", len(got), got)
			}
			var redacted []string
			for _, variable := range got {
				value := values[string(variable.Name)]
				if variable.SHA256 != evidence.Digest([]byte(value)) {
					t.Errorf("sha256 of %q = %s", variable.Name, variable.SHA256)
				}
				if variable.Redacted {
					redacted = append(redacted, string(variable.Name))
				}
				if variable.Redacted != (variable.Value == nil) || (variable.Value != nil && string(*variable.Value) != value) {
					t.Errorf("value of %q = %v", variable.Name, variable.Value)
				}
			}
			slices.Sort(redacted)
			if diff := cmp.Diff(test.redacted, redacted); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCollectDescribesDescriptorsAndOpensNone(t *testing.T) {
	folder := t.TempDir()
	a := start(t, "descriptors "+folder+" 1000", nil)
	p := collect(t, a.target(), Options{}).processes[a.Process.Pid]
	kinds := map[evidence.VolatileDescriptorKind]int{}
	targets := map[string]evidence.VolatileDescriptor{}
	for _, descriptor := range p.Descriptors {
		kinds[descriptor.Kind]++
		targets[string(descriptor.Target)] = descriptor
	}
	if kinds[evidence.DescriptorCharacter] < 1000 {
		t.Errorf("kinds %v", kinds)
	}
	if fifo := targets[filepath.Join(folder, "fifo")]; fifo.Kind != evidence.DescriptorFIFO || fifo.Flags == "" {
		t.Errorf("fifo %+v", fifo)
	}
	deleted := targets[filepath.Join(folder, "gone")+" (deleted)"]
	if deleted.Kind != evidence.DescriptorFile || !deleted.Deleted || deleted.Size != 16 || deleted.Offset != 16 || deleted.Inode == 0 {
		t.Errorf("deleted file %+v", deleted)
	}
	if memfd := targets["/memfd:planted (deleted)"]; memfd.Kind != evidence.DescriptorMemfd || !memfd.Deleted {
		t.Errorf("memfd %+v", memfd)
	}
	if poll := targets["anon_inode:[eventpoll]"]; poll.Kind != evidence.DescriptorAnonymous {
		t.Errorf("epoll %+v", poll)
	}
	if exe := p.Executable; exe.SHA256 != fileDigest(t, "/proc/self/exe") || exe.Deleted || exe.Inode == 0 {
		t.Errorf("executable %+v", exe)
	}
}

func fileDigest(t testing.TB, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	must(t, err)
	return evidence.Digest(content)
}

func TestCollectNamesWhatALimitLeavesOut(t *testing.T) {
	a := start(t, "descriptors "+t.TempDir()+" 100", nil)
	limits := Limits{Descriptors: 10, Maps: 3, Threads: 1, Mounts: 2, Hash: 100, Text: 16, Sockets: 1}
	s := collect(t, a.target(), Options{Limits: limits})
	p := s.processes[a.Process.Pid]
	if len(p.Descriptors) != 10 || len(p.Maps) != 3 || p.MapsTotal <= 3 || len(p.Threads) != 1 || p.ThreadsTotal <= 1 || len(p.Mounts) != 2 {
		t.Errorf("%d descriptors, %d of %d maps, %d of %d threads, %d mounts", len(p.Descriptors), len(p.Maps), p.MapsTotal,
			len(p.Threads), p.ThreadsTotal, len(p.Mounts))
	}
	named := map[string]bool{}
	for _, missing := range p.Missing {
		if missing.Reason == GapLimit {
			named[missing.Part] = true
		}
	}
	want := map[string]bool{"descriptors": true, "maps": true, "threads": true, "mounts": true, "executable": true, "environment": true}
	if diff := cmp.Diff(want, named); diff != "" {
		t.Error(diff)
	}
	if !s.result.Truncated || !s.trailer.Truncated || len(s.gaps) < len(want) {
		t.Errorf("truncated %v, gaps %+v", s.result.Truncated, s.gaps)
	}
	if diff := cmp.Diff(s.result.Gaps, s.trailer.Gaps); diff != "" {
		t.Error(diff)
	}
}

func TestCollectJoinsSocketsWithTheirPeers(t *testing.T) {
	a := start(t, "network", namespaces(unix.CLONE_NEWNET))
	s := collect(t, a.target(), Options{})
	p := s.processes[a.Process.Pid]
	n := s.network(t, namespaceInode(t, a.Process.Pid, "net"))
	states := map[string]string{}
	pairs, packets := 0, 0
	unlisted := ""
	for _, descriptor := range p.Descriptors {
		socket := descriptor.Socket
		switch {
		case descriptor.Kind != evidence.DescriptorSocket:
		case socket == nil:
			unlisted += descriptor.Protocol
		case socket.Namespace != n.Namespace || socket.Inode != descriptor.Inode:
			t.Errorf("socket %+v of descriptor %+v", socket, descriptor)
		case socket.Protocol == "tcp":
			states[socket.Local+" "+socket.Peer] = socket.State
		case socket.Protocol == "packet":
			packets++
		case socket.Protocol == "unix" && socket.PeerInode != 0:
			pairs++
		case socket.Protocol == "unix" && string(socket.Path) != "\x00"+abstract[1:]:
			t.Errorf("unix socket %+v", socket)
		}
	}
	want := map[string]string{
		a.Listening + " 0.0.0.0:0":  "LISTEN",
		a.Local + " " + a.Listening: "ESTABLISHED",
		a.Listening + " " + a.Local: "ESTABLISHED",
	}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Error(diff)
	}
	if pairs != 2 || packets != 1 || unlisted != "TCP" {
		t.Errorf("%d ends of a socket pair, %d packet sockets, unlisted %q", pairs, packets, unlisted)
	}
	for _, socket := range n.Sockets {
		if strings.Contains(string(socket.Path), "/forged") && socket.Path[0] != 0 {
			t.Errorf("a name forged a socket: %+v", socket)
		}
	}
	if len(n.Interfaces) == 0 || n.Interfaces[0].Name != "lo" || len(n.Interfaces[0].Addresses) == 0 ||
		n.Interfaces[0].Addresses[0].Address != "127.0.0.1/8" {
		t.Errorf("interfaces %+v", n.Interfaces)
	}
	local := slices.ContainsFunc(n.Routes, func(r evidence.VolatileRoute) bool { return r.Destination == "127.0.0.0/8" && r.Table == 255 })
	if !local || len(n.Rules) == 0 || n.Node {
		t.Errorf("routes %+v, rules %+v", n.Routes, n.Rules)
	}
}

func TestCollectReadsANetworkThatOnlyADescriptorHolds(t *testing.T) {
	other := start(t, "network", namespaces(unix.CLONE_NEWNET))
	inode := namespaceInode(t, other.Process.Pid, "net")
	file, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", other.Process.Pid))
	must(t, err)
	a := start(t, "wait", func(command *exec.Cmd) { command.ExtraFiles = []*os.File{file} })
	must(t, other.Process.Kill())
	_ = other.Wait()
	must(t, file.Close())
	s := collect(t, a.target(), Options{})
	n := s.network(t, inode)
	if len(n.Interfaces) == 0 || len(n.Rules) == 0 {
		t.Errorf("network %+v", n)
	}
	if last := s.kinds[len(s.kinds)-2]; last != evidence.VolatileKindNetwork {
		t.Errorf("kinds %v", s.kinds)
	}
}

func TestCollectFlagsCoveredMounts(t *testing.T) {
	folder := t.TempDir()
	a := start(t, "mounts "+folder, namespaces(unix.CLONE_NEWNS))
	p := collect(t, a.target(), Options{}).processes[a.Process.Pid]
	byID := map[int]string{}
	covered := map[string]string{}
	for _, mount := range p.Mounts {
		byID[mount.ID] = string(mount.Source)
	}
	for _, mount := range p.Mounts {
		if strings.HasPrefix(string(mount.Source), "over ") {
			covered[fmt.Sprint(mount.Source, mount.CoveredBy != 0)] = byID[mount.CoveredBy]
		}
	}
	want := map[string]string{"over a/btrue": "over a", "over afalse": "", "over ctrue": "over c", "over cfalse": ""}
	if diff := cmp.Diff(want, covered); diff != "" {
		t.Error(diff)
	}
}
