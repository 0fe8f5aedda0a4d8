package tree

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// xattrPrefix is what PAX archives put before the name of an extended attribute.
const xattrPrefix = "SCHILY.xattr."

// FromArchive describes the entries of a tar stream. A name that occurs twice is an error: an archive of a tree has none.
func FromArchive(in io.Reader) (Tree, error) {
	found, names := Tree{}, map[string][]string{}
	reader := tar.NewReader(in)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			found.link(names)
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read entry %d: %w", len(found), err)
		}
		name := escape(clean(header.Name))
		if _, again := found[name]; again {
			return nil, fmt.Errorf("entry %s occurs twice", name)
		}
		if header.Typeflag == tar.TypeLink {
			target := escape(clean(header.Linkname))
			entry, known := found[target]
			if !known {
				return nil, fmt.Errorf("hard link %s points to %s, which does not come before it", name, target)
			}
			if len(names[target]) == 0 {
				names[target] = []string{target}
			}
			names[target] = append(names[target], name)
			entry.Path = name
			found[name] = entry
			continue
		}
		if found[name], err = fromHeader(name, header, reader); err != nil {
			return nil, err
		}
	}
}

// clean makes "./etc/", "/etc" and "etc" one name.
func clean(name string) string {
	cleaned := strings.TrimPrefix(path.Clean("/"+name), "/")
	if cleaned == "" {
		return "."
	}
	return cleaned
}

func fromHeader(name string, header *tar.Header, content io.Reader) (Entry, error) {
	entry := Entry{
		Path: name, Mode: uint32(header.Mode & 0o7777), UID: header.Uid, GID: header.Gid, // #nosec G115 -- twelve bits
		MtimeNanos: header.ModTime.UnixNano(),
	}
	for key, value := range header.PAXRecords {
		if attribute, is := strings.CutPrefix(key, xattrPrefix); is {
			if entry.Xattrs == nil {
				entry.Xattrs = map[string]string{}
			}
			entry.Xattrs[attribute] = hexOf(value)
		}
	}
	device := fmt.Sprintf("%d:%d", header.Devmajor, header.Devminor)
	switch header.Typeflag {
	case tar.TypeDir:
		entry.Type = Directory
	case tar.TypeSymlink:
		entry.Type, entry.Target = Symlink, escape(header.Linkname)
	case tar.TypeChar:
		entry.Type, entry.Device = Char, device
	case tar.TypeBlock:
		entry.Type, entry.Device = Block, device
	case tar.TypeFifo:
		entry.Type = Fifo
	case tar.TypeReg, tar.TypeGNUSparse:
		entry.Type, entry.Size = File, header.Size
		hash := sha256.New()
		if _, err := io.Copy(hash, content); err != nil {
			return Entry{}, fmt.Errorf("read content of %s: %w", name, err)
		}
		entry.SHA256 = hex.EncodeToString(hash.Sum(nil))
	default:
		return Entry{}, fmt.Errorf("entry %s has type %q, which no tree has", name, header.Typeflag)
	}
	return entry, nil
}
