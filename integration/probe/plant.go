package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// plant makes, under a folder, one of everything that a capture has lost in some tool.
func plant(folder string) error {
	if err := os.MkdirAll(folder, 0o711); err != nil { // #nosec G301 -- an odd mode is the point
		return fmt.Errorf("make %s: %w", folder, err)
	}
	for _, step := range []func(string) error{plantNames, plantLinks, plantModes, plantSpecial, plantXattrs, plantTimes} {
		if err := step(folder); err != nil {
			return fmt.Errorf("plant in %s: %w", folder, err)
		}
	}
	return nil
}

func plantNames(folder string) error {
	deep := filepath.Join(folder, strings.Repeat("long-folder-name/", 20))
	if err := os.MkdirAll(deep, 0o750); err != nil {
		return err
	}
	names := map[string]string{
		"evidence.txt": "the planted evidence\n", "empty": "", "with space": "x", "new\nline": "x", "not-utf8-\xff\xfe": "x",
		"ünïcödé": "x", strings.Repeat("n", 255): "x", "-rf": "x",
		filepath.Join(strings.Repeat("long-folder-name/", 20), "leaf"): "deep",
	}
	for name, content := range names {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o640); err != nil { // #nosec G306 -- a common mode
			return err
		}
	}
	// 300 KiB of a pattern that spans several read buffers, and a hole of 1 MiB before it.
	sparse, err := os.Create(filepath.Join(folder, "sparse"))
	if err != nil {
		return err
	}
	if _, err := sparse.WriteAt([]byte(strings.Repeat("0123456789abcdef", 300<<6)), 1<<20); err != nil {
		return err
	}
	return sparse.Close()
}

func plantLinks(folder string) error {
	original := filepath.Join(folder, "evidence.txt")
	if err := os.Mkdir(filepath.Join(folder, "links"), 0o750); err != nil {
		return err
	}
	for _, name := range []string{"hard-1", "links/hard-2", "links/hard-3"} {
		if err := os.Link(original, filepath.Join(folder, name)); err != nil {
			return err
		}
	}
	targets := map[string]string{
		"relative": "../evidence.txt", "absolute": "/etc/shadow", "dangling": "nowhere", "loop": "loop",
		"outside": "../../../../../../../../etc/passwd", "long": strings.Repeat("x/", 600), "raw": "\xff\xfe",
	}
	for name, target := range targets {
		if err := os.Symlink(target, filepath.Join(folder, "links", name)); err != nil {
			return err
		}
	}
	return nil
}

func plantModes(folder string) error {
	modes := map[string]uint32{
		"setuid": 0o4755, "setgid": 0o2755, "sticky": 0o1777, "nothing": 0, "all": 0o7777, "write-only": 0o222,
	}
	for name, mode := range modes {
		path := filepath.Join(folder, "mode-"+name)
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			return err
		}
		// Large ids need a PAX record; a change of owner clears setuid, so the mode comes last.
		if err := unix.Chown(path, 1234567, 7654321); err != nil {
			return fmt.Errorf("chown %s: %w", path, err)
		}
		if err := unix.Chmod(path, mode); err != nil {
			return fmt.Errorf("chmod %s: %w", path, err)
		}
	}
	if err := os.Mkdir(filepath.Join(folder, "closed"), 0o700); err != nil {
		return err
	}
	return unix.Chmod(filepath.Join(folder, "closed"), 0o3000)
}

func plantSpecial(folder string) error {
	if err := unix.Mkfifo(filepath.Join(folder, "fifo"), 0o622); err != nil {
		return fmt.Errorf("make a fifo: %w", err)
	}
	if err := unix.Mknod(filepath.Join(folder, "null"), unix.S_IFCHR|0o666, 1<<8|3); err != nil {
		return fmt.Errorf("make a device node: %w", err)
	}
	return nil
}

func plantXattrs(folder string) error {
	path := filepath.Join(folder, "attributes")
	if err := os.WriteFile(path, []byte("x"), 0o750); err != nil { // #nosec G306 -- a file with capabilities is executable
		return err
	}
	// security.capability revision 2, effective, CAP_NET_RAW permitted.
	values := map[string]string{
		"user.note": "planted", "user.empty": "", "user.binary": "\x00\x01=\n\xff",
		"security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	}
	for name, value := range values {
		if err := unix.Lsetxattr(path, name, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	if err := unix.Lsetxattr(folder, "user.folder", []byte("of a folder"), 0); err != nil {
		return fmt.Errorf("set user.folder: %w", err)
	}
	return nil
}

// plantTimes comes last, for anything else would change the times again.
func plantTimes(folder string) error {
	times := map[string]time.Time{
		"evidence.txt": time.Unix(1234567890, 123456789), "empty": time.Unix(0, 1), "fifo": time.Unix(4102444800, 999999999),
		"links/relative": time.Unix(1000000000, 42), "links": time.Unix(1111111111, 111111111), "with space": time.Unix(-86400, 5),
	}
	for name, at := range times {
		stamp := unix.NsecToTimespec(at.UnixNano())
		err := unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(folder, name), []unix.Timespec{stamp, stamp}, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil {
			return fmt.Errorf("set times of %s: %w", name, err)
		}
	}
	return nil
}
