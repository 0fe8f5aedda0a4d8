package volatile

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// roleVariable makes this test binary play a process of a pod.
const roleVariable = "VOLATILE_TEST_ROLE"

// told is what a role says when it is in place.
type told struct {
	Address, Length  uint64
	Listening, Local string
	Children         []int
	TID              int
}

func TestMain(m *testing.M) {
	role, arguments, _ := strings.Cut(os.Getenv(roleVariable), " ")
	if role == "" {
		os.Exit(m.Run())
	}
	play, ok := map[string]func(string) (told, error){
		"wait": func(string) (told, error) { return told{}, nil }, "descriptors": playDescriptors, "network": playNetwork,
		"secret": playSecret, "mounts": playMounts, "parent": playParent, "files": playFiles, "thread": playThread,
		"fragments": playFragments, "fill": playFill, "detached": playDetached, "holder": playHolder, "deep": playDeep,
		"chroot": func(folder string) (told, error) { return told{}, unix.Chroot(folder) },
	}[role]
	if !ok {
		fmt.Fprintf(os.Stderr, "no role %q\n", role)
		os.Exit(2)
	}
	said, err := play(arguments)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		os.Exit(2)
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test closes it
	runtime.KeepAlive(kept)
}

// kept keeps what a role opened.
var kept []any

func playDescriptors(arguments string) (told, error) {
	folder, number, _ := strings.Cut(arguments, " ")
	count, err := strconv.Atoi(number)
	if err != nil {
		return told{}, err
	}
	for range count {
		if _, err := unix.Open("/dev/null", unix.O_RDONLY, 0); err != nil {
			return told{}, err
		}
	}
	fifo := filepath.Join(folder, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		return told{}, err
	}
	if _, err := unix.Open(fifo, unix.O_RDWR, 0); err != nil {
		return told{}, err
	}
	gone := filepath.Join(folder, "gone")
	fd, err := unix.Open(gone, unix.O_RDWR|unix.O_CREAT, 0o600)
	if err != nil {
		return told{}, err
	}
	if _, err := unix.Write(fd, []byte("deleted but open")); err != nil {
		return told{}, err
	}
	if _, err := unix.MemfdCreate("planted", 0); err != nil {
		return told{}, err
	}
	if _, err := unix.EpollCreate1(0); err != nil {
		return told{}, err
	}
	return told{}, unix.Unlink(gone)
}

// abstract is a name whose newline would forge a line of /proc/net/unix.
const abstract = "@evil\nffff0000: 00000002 00000000 00010000 0001 01 1 /forged"

func playNetwork(string) (told, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return told{}, err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return told{}, err
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return told{}, err
	}
	connected, err := net.Dial("tcp4", listener.Addr().String())
	if err != nil {
		return told{}, err
	}
	accepted, err := listener.Accept()
	if err != nil {
		return told{}, err
	}
	named, err := net.Listen("unix", abstract)
	if err != nil {
		return told{}, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return told{}, err
	}
	unbound, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return told{}, err
	}
	packet, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0x0300)
	if err != nil {
		return told{}, err
	}
	kept = append(kept, listener, connected, accepted, named, pair, unbound, packet)
	return told{Listening: listener.Addr().String(), Local: connected.LocalAddr().String()}, nil
}

// secret is what a core file must hold. The role makes it at run time, so that the binary does not contain it.
func secret() []byte { return []byte(strings.Repeat("hunter", 2) + "-" + strconv.Itoa(7*6)) }

// secretPage is the page of the secret mapping with the secret; those before it are never touched.
const secretPage = 3

func playSecret(string) (told, error) {
	const size = 64 << 12
	// With a page that nobody may touch on either side, so that the kernel does not join it with a neighbour.
	fenced, err := unix.Mmap(-1, 0, size+2<<12, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return told{}, err
	}
	memory := fenced[1<<12 : size+1<<12]
	if err := unix.Mprotect(memory, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return told{}, err
	}
	copy(memory[secretPage<<12:], secret())
	kept = append(kept, memory[10<<12]) // read only: the page of zeros
	// Terabytes of addresses without pages.
	huge, _, errno := unix.Syscall6(unix.SYS_MMAP, 0, 4<<40, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE, ^uintptr(0), 0)
	if errno != 0 {
		return told{}, errno
	}
	kept = append(kept, fenced, huge)
	return told{Address: addressOf(memory), Length: size}, nil
}

// playFragments touches every second page.
func playFragments(arguments string) (told, error) {
	count, err := strconv.Atoi(arguments)
	if err != nil {
		return told{}, err
	}
	memory, err := unix.Mmap(-1, 0, count*2<<12, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return told{}, err
	}
	if err := unix.Madvise(memory, unix.MADV_NOHUGEPAGE); err != nil {
		return told{}, err
	}
	for page := range count {
		memory[page*2<<12] = 'x'
	}
	kept = append(kept, memory)
	return told{Address: addressOf(memory)}, nil
}

// playFill writes to so many MiB of memory.
func playFill(arguments string) (told, error) {
	count, err := strconv.Atoi(arguments)
	if err != nil {
		return told{}, err
	}
	memory, err := unix.Mmap(-1, 0, count<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return told{}, err
	}
	for at := range memory {
		memory[at] = byte(at * at >> 7)
	}
	kept = append(kept, memory)
	return told{Address: addressOf(memory)}, nil
}

func playMounts(folder string) (told, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return told{}, err
	}
	for _, name := range []string{"a/b", "c"} {
		if err := os.MkdirAll(filepath.Join(folder, name), 0o700); err != nil {
			return told{}, err
		}
	}
	// On a/b, then on a above it; twice on c.
	for _, name := range []string{"a/b", "a", "c", "c"} {
		if err := unix.Mount("over "+name, filepath.Join(folder, name), "tmpfs", 0, "size=4k"); err != nil {
			return told{}, err
		}
	}
	return told{}, nil
}

// playParent starts children of the role wait.
func playParent(number string) (told, error) {
	count, err := strconv.Atoi(number)
	if err != nil {
		return told{}, err
	}
	var said told
	for range count {
		child := exec.Command("/proc/self/exe")
		child.Env = append(os.Environ(), roleVariable+"=wait")
		// The write end stays open in the parent, which ends with the test.
		if _, err := child.StdinPipe(); err != nil {
			return told{}, err
		}
		output, err := child.StdoutPipe()
		if err != nil {
			return told{}, err
		}
		if err := child.Start(); err != nil {
			return told{}, err
		}
		if _, err := bufio.NewReader(output).ReadString('\n'); err != nil {
			return told{}, err
		}
		said.Children = append(said.Children, child.Process.Pid)
		kept = append(kept, child, output)
	}
	_, err = playNetwork("")
	return said, err
}

// playFiles makes a memfd that only a mapping holds, a sparse one, and shared anonymous memory.
func playFiles(string) (told, error) {
	fd, err := unix.MemfdCreate("mapped", 0)
	if err != nil {
		return told{}, err
	}
	if _, err := unix.Write(fd, []byte("only mapped")); err != nil {
		return told{}, err
	}
	mapped, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return told{}, err
	}
	if err := unix.Close(fd); err != nil {
		return told{}, err
	}
	sparse, err := unix.MemfdCreate("sparse", 0)
	if err != nil {
		return told{}, err
	}
	if _, err := unix.Pwrite(sparse, []byte("behind the hole"), sparseOffset); err != nil {
		return told{}, err
	}
	common, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON)
	if err != nil {
		return told{}, err
	}
	copy(common, "shared anonymous")
	kept = append(kept, mapped, common)
	return told{}, nil
}

// sparseOffset is behind a hole of one TiB.
const sparseOffset = 1 << 40

// playThread makes a thread that has a table of descriptors of its own.
func playThread(string) (told, error) {
	ready := make(chan told)
	var play func()
	play = func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			go play()
			select {} // and stay on the main thread
		}
		said := told{TID: unix.Gettid()}
		if err := unix.Unshare(unix.CLONE_FILES); err != nil {
			said.TID = 0
		}
		if _, err := unix.MemfdCreate("of one thread", 0); err != nil {
			said.TID = 0
		}
		ready <- said
		select {}
	}
	go play()
	said := <-ready
	if said.TID == 0 {
		return said, errors.New("the thread could not make its own table")
	}
	return said, nil
}
