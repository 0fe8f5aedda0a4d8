package main

import (
	"os"
	"path/filepath"
	"testing"

	"ugallu.io/forensics/integration/internal/tree"
	"ugallu.io/forensics/internal/testneeds"
)

func TestPlantHasOneOfEverything(t *testing.T) {
	testneeds.That(t, os.Geteuid() == 0, "device nodes and owners need root")
	folder := filepath.Join(t.TempDir(), "planted")
	if err := plant(folder); err != nil {
		t.Fatal(err)
	}
	planted, err := tree.Walk(folder)
	if err != nil {
		t.Fatal(err)
	}
	types := map[tree.Type]int{}
	for _, entry := range planted {
		types[entry.Type]++
	}
	for _, kind := range []tree.Type{tree.File, tree.Directory, tree.Symlink, tree.Char, tree.Fifo} {
		if types[kind] == 0 {
			t.Errorf("no %s is planted", kind)
		}
	}
	if got := planted["links/hard-3"]; got.LinkedWith != "evidence.txt" || got.MtimeNanos%1e9 != 123456789 {
		t.Errorf("the hard link is %+v", got)
	}
	if got := planted["mode-setuid"]; got.Mode != 0o4755 || got.UID != 1234567 {
		t.Errorf("the setuid file is %+v", got)
	}
	if got := planted["attributes"].Xattrs; got["user.note"] == "" || got["security.capability"] == "" {
		t.Errorf("the attributes are %v", got)
	}
}

func TestRunWithoutACommandSaysHow(t *testing.T) {
	if err := run(nil); err == nil || err.Error() != usage {
		t.Errorf("no command answered %v", err)
	}
}
