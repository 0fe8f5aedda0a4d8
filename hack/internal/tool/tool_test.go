package tool

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPackagesAreThoseOfTheMissingTools(t *testing.T) {
	got := packages(func(name string) bool { return name != "ip" && name != "zstd" })
	if diff := cmp.Diff([]string{"iproute2", "zstd"}, got); diff != "" {
		t.Error(diff)
	}
}
