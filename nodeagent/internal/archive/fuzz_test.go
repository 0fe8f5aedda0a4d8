package archive

import (
	"archive/tar"
	"bytes"
	"cmp"
	"errors"
	"io"
	"math"
	"path"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func withoutZero(text string) string { return strings.ReplaceAll(text, "\x00", "") }

// kernelName makes of any text a path that a walk can come upon.
func kernelName(text string) string {
	return cmp.Or(strings.TrimPrefix(path.Clean("/"+withoutZero(text)), "/"), "file")
}

// FuzzTarRoundTrip has Go's reader, which shares no code with us, read what we write.
func FuzzTarRoundTrip(f *testing.F) {
	f.Add("etc/passwd", "", "user.a", []byte("value"), []byte("content"), int64(1), uint64(1))
	f.Add(strings.Repeat("deep/", 60)+"\xff\n", strings.Repeat("\xfe", 200), "user.a=b%c", []byte{0, '\n', 0xff}, []byte{}, int64(-1), uint64(math.MaxUint64))
	f.Add("é", "é", "trusted.\xff", []byte(nil), make([]byte, 1025), int64(math.MinInt32), uint64(1<<33))
	f.Fuzz(func(t *testing.T, name, link, attribute string, value, content []byte, second int64, number uint64) {
		name, link, attribute = kernelName(name), strings.TrimRight(withoutZero(link), "/"), cmp.Or(withoutZero(attribute), "user.a")
		at := unix.StatxTimestamp{Sec: second % (1 << 40), Nsec: uint32(number % 1e9)}
		o := &object{path: name, stat: unix.Statx_t{
			Mode: unix.S_IFREG | uint16(number&0o7777), Uid: uint32(number >> 3), Gid: uint32(number >> 31),
			Mtime: at, Atime: at, Ctime: at, Size: uint64(len(content)),
		}}
		h := plainHeader(o, flagFile)
		h.size = int64(len(content))
		h.xattrs = []xattr{{name: attribute, value: value}}
		if link != "" {
			h = plainHeader(o, flagSymlink)
			h.link, content = link, nil
		}
		var encoder tarEncoder
		stream := append([]byte{}, encoder.header(h)...)
		stream = append(append(stream, content...), zeros[:padding(int64(len(content)))]...)
		reader := tar.NewReader(bytes.NewReader(append(stream, zeros[:]...)))
		got, err := reader.Next()
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != name || got.Linkname != link || got.Uid != int(o.stat.Uid) || got.Gid != int(o.stat.Gid) ||
			got.Mode != int64(number&0o7777) || got.ModTime.Unix() != at.Sec || got.ModTime.Nanosecond() != int(at.Nsec) ||
			!got.AccessTime.Equal(got.ModTime) || !got.ChangeTime.Equal(got.ModTime) {
			t.Errorf("read %+v", got)
		}
		if link == "" && got.PAXRecords["SCHILY.xattr."+h.xattrs[0].key()] != string(value) {
			t.Errorf("attributes %q", got.PAXRecords)
		}
		read, err := io.ReadAll(reader)
		if _, end := reader.Next(); err != nil || !bytes.Equal(read, content) || !errors.Is(end, io.EOF) {
			t.Errorf("content %q, %v, %v", read, err, end)
		}
	})
}
