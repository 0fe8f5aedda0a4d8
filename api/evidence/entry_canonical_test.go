package evidence_test

import (
	"math"
	"reflect"
	"testing"
	"unicode/utf8"

	"ugallu.io/forensics/api/evidence"
)

// fullEntry has something in every field.
func fullEntry() evidence.Entry {
	return evidence.Entry{
		Path: "dir/\xffname \"\\\n\x01é\u2028", PathBytes: []byte("dir/\xffname \"\\\n\x01é\u2028"), Type: evidence.EntryHardLink,
		LinkedType: evidence.EntrySymlink, Mode: 0o4755, UID: math.MaxUint32, GID: 2, Inode: math.MaxUint64, Links: 3,
		Size: math.MaxInt64, SHA256: "aa", StoredSHA256: "bb", AccessTime: "1.000000000", ModTime: "-1.500000000",
		ChangeTime: "2.000000001", BirthTime: "3.000000000", Layer: evidence.LayerUpper, Link: "l\xfe", LinkBytes: []byte("l\xfe"),
		Major: 8, Minor: 1, XAttrs: map[string][]byte{"user.\ue000": {}, "user.😀": {1, 2}, "user.a": []byte("v")},
		Overlay: &evidence.Overlay{
			Whiteout: true, Opaque: true, Redirect: "r\xfd", RedirectBytes: []byte("r\xfd"), Metacopy: true, CopiedUp: true,
		},
		Position: &evidence.Position{Frame: 1 << 40, FrameSize: 5, Offset: 512, Span: 6},
		Flags:    []evidence.Flag{evidence.FlagSparse, evidence.FlagImmutable}, Gaps: []string{"Unreadable", "A\tB"},
	}
}

func canonical(t testing.TB, value any) string {
	t.Helper()
	want, err := evidence.Canonical(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(want)
}

func TestAppendCanonicalIsTheCanonicalJSONOfEveryField(t *testing.T) {
	full := fullEntry()
	for _, value := range []reflect.Value{reflect.ValueOf(full), reflect.ValueOf(*full.Overlay), reflect.ValueOf(*full.Position)} {
		for i := range value.NumField() {
			if value.Field(i).IsZero() {
				t.Errorf("the test lacks %s.%s", value.Type(), value.Type().Field(i).Name)
			}
		}
	}
	for name, entry := range map[string]evidence.Entry{
		"full":  full,
		"empty": {},
		"some":  {Path: "a", Overlay: &evidence.Overlay{}, Position: &evidence.Position{}, XAttrs: map[string][]byte{"x": nil}},
	} {
		if got, want := string(entry.AppendCanonical(nil)), canonical(t, &entry); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, want)
		}
	}
}

func FuzzEntryCanonical(f *testing.F) {
	f.Add("a/b", []byte("value"), int64(-1), uint64(1)<<63, "user.x")
	f.Add("\xff\x00\b\t\n\f\r\"\\\x7f", []byte{}, int64(math.MaxInt64), uint64(0), "user.\ue000😀")
	f.Add("\u2028\ufeff<>&", []byte{0}, int64(0), uint64(math.MaxUint64), "😀\uffff")
	f.Fuzz(func(t *testing.T, text string, value []byte, number int64, large uint64, key string) {
		if !utf8.ValidString(key) {
			return // names of attributes are UTF-8
		}
		if value == nil {
			value = []byte{}
		}
		entry := evidence.Entry{
			Path: text, PathBytes: evidence.RawBytes(text), Type: evidence.EntryType(text), Mode: uint32(number), Inode: large,
			Size: number, Link: text, ModTime: text, XAttrs: map[string][]byte{key: value, "user.\uffff": value},
			Overlay: &evidence.Overlay{Redirect: text, Whiteout: number&1 == 0}, Flags: []evidence.Flag{evidence.Flag(text)},
			Position: &evidence.Position{Frame: number >> 11, Span: int64(large >> 12)}, Gaps: []string{text, key},
		}
		if got, want := string(entry.AppendCanonical(nil)), canonical(t, &entry); got != want {
			t.Errorf("\ngot  %s\nwant %s", got, want)
		}
	})
}
