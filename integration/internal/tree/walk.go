package tree

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Walk describes the live folder root, without following links and without crossing into other file systems.
func Walk(root string) (Tree, error) {
	var top unix.Stat_t
	if err := unix.Lstat(root, &top); err != nil {
		return nil, fmt.Errorf("stat %s: %w", root, err)
	}
	found, names := Tree{}, map[string][]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); err != nil {
			return fmt.Errorf("stat %s: %w", path, err)
		}
		if stat.Dev != top.Dev && stat.Mode&unix.S_IFMT == unix.S_IFDIR {
			return filepath.SkipDir
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return fmt.Errorf("relate %s: %w", path, err)
		}
		entry, err := describe(path, escape(relative), &stat)
		if err != nil {
			return err
		}
		found[entry.Path] = entry
		if entry.Type != Directory && stat.Nlink > 1 {
			inode := fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
			names[inode] = append(names[inode], entry.Path)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("walk %s: %w", root, err)
	}
	found.link(names)
	return found, nil
}

func describe(path, name string, stat *unix.Stat_t) (Entry, error) {
	entry := Entry{
		Path: name, Mode: stat.Mode & 0o7777, UID: int(stat.Uid), GID: int(stat.Gid),
		MtimeNanos: stat.Mtim.Sec*1e9 + stat.Mtim.Nsec,
	}
	var err error
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		entry.Type = Directory
	case unix.S_IFLNK:
		entry.Type = Symlink
		var target string
		target, err = os.Readlink(path)
		entry.Target = escape(target)
	case unix.S_IFCHR:
		entry.Type, entry.Device = Char, device(stat.Rdev)
	case unix.S_IFBLK:
		entry.Type, entry.Device = Block, device(stat.Rdev)
	case unix.S_IFIFO:
		entry.Type = Fifo
	case unix.S_IFSOCK:
		entry.Type = Socket
	default:
		entry.Type, entry.Size = File, stat.Size
		entry.SHA256, err = hashFile(path)
	}
	if err != nil {
		return Entry{}, fmt.Errorf("read %s: %w", path, err)
	}
	entry.Xattrs, err = xattrs(path)
	return entry, err
}

func device(number uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number))
}

func hashFile(path string) (sum string, err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0) // #nosec G304 -- the tree to describe
	if err != nil {
		return "", fmt.Errorf("open: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", fmt.Errorf("hash: %w", err)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

func xattrs(path string) (map[string]string, error) {
	// XATTR_LIST_MAX and XATTR_SIZE_MAX of the kernel are both 64 KiB.
	buffer := make([]byte, 64<<10)
	size, err := unix.Llistxattr(path, buffer)
	if errors.Is(err, unix.ENOTSUP) || size == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list attributes of %s: %w", path, err)
	}
	values := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimRight(string(buffer[:size]), "\x00"), "\x00") {
		value := make([]byte, 64<<10)
		length, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("read attribute %s of %s: %w", name, path, err)
		}
		values[name] = hex.EncodeToString(value[:length])
	}
	return values, nil
}
