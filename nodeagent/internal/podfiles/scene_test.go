package podfiles_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/internal/testneeds"
	"ugallu.io/forensics/nodeagent/internal/podfiles"
)

// act is what this program does in place of its tests, in a mount namespace of its own.
const act = "PODFILES_TEST_ACT"

const (
	uid    = "11111111-2222-3333-4444-555555555555"
	shm    = "/dev/shm"
	secret = "correct horse battery staple"
)

// acts are what a suspect does before it is frozen.
var acts = map[string]func() error{
	"shm": func() error {
		return errors.Join(tmpfs(shm), put(shm+"/loot", secret))
	},
	"shm twice": func() error {
		return errors.Join(tmpfs(shm), put(shm+"/loot", secret), again("idle"))
	},
	"idle": func() error { return nil },
	"link": func() error {
		return errors.Join(tmpfs("/dev"), os.Symlink("/etc", shm))
	},
	"bind":     func() error { return bind(os.Getenv("BIND"), shm) },
	"fuse":     func() error { return fuse(shm) },
	"fuse dev": func() error { return fuse("/dev") },
	"covered": func() error {
		return errors.Join(tmpfs("/mnt"), put("/mnt/loot", secret), tmpfs("/mnt"))
	},
	"elsewhere": func() error {
		return errors.Join(tmpfs("/mnt"), put("/mnt/loot", secret), tmpfs("/srv"))
	},
	"deep": func() error {
		return errors.Join(tmpfs("/mnt"), deep("/mnt", 33_000), tmpfs("."), os.Chdir("/"), tmpfs(shm), put(shm+"/loot", secret))
	},
	"shm before the flood": func() error {
		return errors.Join(tmpfs(shm), put(shm+"/loot", secret), flood())
	},
	"shm after the flood": func() error {
		return errors.Join(flood(), tmpfs(shm), put(shm+"/loot", secret))
	},
	"deep root": func() error {
		return errors.Join(tmpfs("/mnt"), deep("/mnt", 200), bind(".", "/dev"), os.Chdir("/"), os.Mkdir(shm, 0o700),
			tmpfs(shm), put(shm+"/loot", secret))
	},
	"files": func() error {
		return errors.Join(tmpfs("/mnt"), put("/mnt/loot", secret), put("/mnt/on", ""), bind("/mnt/loot", "/mnt/on"))
	},
	"chroot": func() error {
		return errors.Join(tmpfs(shm), put(shm+"/loot", secret), unix.Chroot("/usr"), os.Chdir("/"))
	},
}

func TestMain(m *testing.M) {
	do, ok := acts[os.Getenv(act)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), do()); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	// The suspect ends with the test, also when that ends without cleaning up.
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func tmpfs(at string) error {
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, "mode=1777,size=16m"); err != nil {
		return fmt.Errorf("mount tmpfs at %s: %w", at, err)
	}
	return nil
}

func bind(from, at string) error {
	if err := unix.Mount(from, at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s at %s: %w", from, at, err)
	}
	return nil
}

// deep makes folders in one another, and stays in the last.
func deep(at string, folders int) error {
	name := strings.Repeat("a", 255)
	if err := unix.Chdir(at); err != nil {
		return err
	}
	for range folders {
		if err := errors.Join(unix.Mkdir(name, 0o700), unix.Chdir(name)); err != nil {
			return fmt.Errorf("make a folder: %w", err)
		}
	}
	return nil
}

// flood makes a list of mounts of 20 MiB.
func flood() error {
	err := errors.Join(tmpfs("/mnt"), deep("/mnt", 20_000))
	for i := range 4 {
		name := fmt.Sprint(i)
		err = errors.Join(err, unix.Mkdir(name, 0o700), tmpfs(name))
	}
	return errors.Join(err, os.Chdir("/"))
}

func put(path, content string) error { return os.WriteFile(path, []byte(content), 0o600) }

// fuse mounts a file system that never answers.
func fuse(at string) error {
	device, err := unix.Open("/dev/fuse", unix.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open /dev/fuse: %w", err)
	}
	return unix.Mount("silent", at, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", device))
}

// again runs this program in one more mount namespace.
func again(doing string) error {
	command := exec.Command("/proc/self/exe")
	command.Env = append(os.Environ(), act+"="+doing)
	command.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	command.Stdin = os.Stdin
	ready, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	if _, err := bufio.NewReader(ready).ReadString('\n'); err != nil {
		return err
	}
	fmt.Println(command.Process.Pid)
	return nil
}

// suspect is a process in namespaces of its own.
type suspect struct {
	command *exec.Cmd
	// said are the lines before it was ready.
	said []string
}

func (s *suspect) pid() int { return s.command.Process.Pid }

// end kills the process and waits for it: its mount namespace goes with it.
func (s *suspect) end(t *testing.T) {
	t.Helper()
	must(t, s.command.Process.Kill())
	if err := s.command.Wait(); err == nil {
		t.Error("the suspect ended by itself")
	}
}

// run starts a suspect and waits until it has done what it does.
func run(t *testing.T, doing string, flags uintptr) *suspect {
	t.Helper()
	testneeds.That(t, os.Geteuid() == 0, "needs root")
	command := exec.Command("/proc/self/exe")
	command.Env = append(os.Environ(), act+"="+doing)
	command.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | flags}
	if flags&unix.CLONE_NEWUSER != 0 {
		mapping := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
		command.SysProcAttr.UidMappings, command.SysProcAttr.GidMappings = mapping, mapping
		command.SysProcAttr.Credential = &syscall.Credential{}
	}
	_, err := command.StdinPipe()
	must(t, err)
	out, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	t.Cleanup(func() {
		if command.ProcessState == nil {
			must(t, command.Process.Kill())
			_ = command.Wait()
		}
	})
	one := &suspect{command: command}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == "ready" {
			return one
		}
		one.said = append(one.said, lines.Text())
	}
	t.Fatalf("suspect %q: %s", doing, strings.Join(one.said, "; "))
	return nil
}

// node is a node's folders with the pod "web" in namespace "shop".
type node struct {
	roots podfiles.Roots
	pod   podfiles.Pod
}

func newNode(t *testing.T) *node {
	t.Helper()
	testneeds.That(t, os.Geteuid() == 0, "needs root")
	folder := t.TempDir()
	n := &node{
		roots: podfiles.Roots{
			Kubelet: filepath.Join(folder, "kubelet"), Logs: filepath.Join(folder, "logs"),
			// The tests' own mount namespace is the node's.
			Node: "/proc/self/mountinfo",
		},
		pod: podfiles.Pod{Namespace: "shop", Name: "web", UID: uid},
	}
	for _, name := range []string{"volumes", "containers/app"} {
		must(t, os.MkdirAll(n.path(name), 0o750))
	}
	must(t, put(n.path("etc-hosts"), "127.0.0.1 localhost\n"))
	must(t, put(n.path("containers/app/1a2b3c4d"), "said at the end"))
	must(t, os.MkdirAll(n.log("app"), 0o755))
	must(t, put(filepath.Join(n.log("app"), "0.log"), "first"))
	return n
}

func (n *node) path(name string) string { return filepath.Join(n.roots.Kubelet, "pods", uid, name) }

func (n *node) log(name string) string { return filepath.Join(n.roots.Logs, "shop_web_"+uid, name) }

// volume makes a volume's folder.
func (n *node) volume(t *testing.T, plugin, name string) string {
	t.Helper()
	path := n.path("volumes/kubernetes.io~" + plugin + "/" + name)
	must(t, os.MkdirAll(path, 0o777))
	return path
}

// memory makes a volume's folder with memory on it.
func (n *node) memory(t *testing.T, plugin, name string) string {
	t.Helper()
	path := n.volume(t, plugin, name)
	must(t, tmpfs(path))
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
	})
	return path
}

func (n *node) find(t *testing.T) podfiles.Found {
	t.Helper()
	found, err := podfiles.Find(t.Context(), n.pod, n.roots)
	must(t, err)
	return found
}

// source returns the one source of a kind.
func source(t *testing.T, found podfiles.Found, name string) podfiles.Source {
	t.Helper()
	for _, one := range found.Sources {
		if strings.HasPrefix(one.Name, name) {
			return one
		}
	}
	t.Fatalf("no source %s among %v, gaps %v", name, found.Sources, found.Gaps)
	return podfiles.Source{}
}

func reasons(found podfiles.Found) map[string]int64 {
	count := map[string]int64{}
	for _, gap := range podfiles.Count(found.Gaps) {
		count[gap.Reason] = gap.Count
	}
	return count
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	must(t, err)
	return string(content)
}
