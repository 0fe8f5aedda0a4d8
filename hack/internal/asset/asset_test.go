package asset

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSourcesChangesOnlyWithWhatABinaryIsMadeFrom(t *testing.T) {
	cases := map[string]struct {
		file, content string
		changes       bool
	}{
		"a comment in the source": {file: "main.go", content: "package main\n\n// why\nfunc main() {}\n", changes: true},
		"a test":                  {file: "main_test.go", content: "package main\n"},
		"another package":         {file: "other/other.go", content: "package other\n"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "go.mod", "module example.test/one\n\ngo 1.24\n")
			write(t, dir, "main.go", "package main\n\nfunc main() {}\n")
			before := key(t, dir)
			write(t, dir, c.file, c.content)
			if changed := key(t, dir) != before; changed != c.changes {
				t.Errorf("the hash changed: %v, want %v", changed, c.changes)
			}
		})
	}
}

func TestDirNamesAProgramByItsInputs(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	plain := Program{Name: "a", Module: "m", Version: "v1"}
	first, err := plain.Dir()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Program{Name: "a", Module: "m", Version: "v1"}.Dir()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("equal programs in different folders (-first +again):\n%s", diff)
	}
	for name, other := range map[string]Program{
		"version": {Name: "a", Module: "m", Version: "v2"},
		"flags":   {Name: "a", Module: "m", Version: "v1", LDFlags: "-X a.b=c"},
		"tags":    {Name: "a", Module: "m", Version: "v1", Tags: "x"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := other.Dir()
			if err != nil {
				t.Fatal(err)
			}
			if dir == first {
				t.Error("another program in the same folder")
			}
		})
	}
}

func TestJoinLinksEveryFileAndCanBeRepeated(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	one, two := t.TempDir(), t.TempDir()
	write(t, one, "etcd", "1")
	write(t, two, "kubectl", "2")
	for range 2 {
		dir, err := Join("tools", []string{one, two})
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"etcd": "1", "kubectl": "2"} {
			got, err := os.ReadFile(filepath.Join(dir, name)) // #nosec G304 -- a test's own folder
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != want {
				t.Errorf("%s = %q, want %q", name, got, want)
			}
		}
	}
}

func key(t *testing.T, dir string) string {
	t.Helper()
	hash, err := sources(context.Background(), dir, ".")
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTwoWhoBuildTheSameBothSucceed(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "kept")
	for _, name := range []string{"first", "second"} {
		out := filepath.Join(base, name)
		if err := os.Mkdir(out, 0o750); err != nil {
			t.Fatal(err)
		}
		write(t, out, "binary", name)
		if err := keep(out, dir); err != nil {
			t.Errorf("the %s: %v", name, err)
		}
	}
	if kept, err := os.ReadFile(filepath.Join(dir, "binary")); err != nil || string(kept) != "first" {
		t.Errorf("kept %q (%v)", kept, err)
	}
	if err := keep(filepath.Join(base, "missing"), filepath.Join(base, "other")); err == nil {
		t.Error("a folder that was not built is kept")
	}
}
