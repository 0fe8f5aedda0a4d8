package containers

import (
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/pkg/filters"
)

func TestFilterMatchesThePodAndNothingElse(t *testing.T) {
	for _, wanted := range []string{uid, "", `x,labels."a"==b`, `"x`, "x|y", "ü"} {
		filter, err := filters.Parse(podFilter(wanted))
		if err != nil {
			t.Errorf("filter for %q: %v", wanted, err)
			continue
		}
		for _, labelled := range []string{uid, "x", wanted} {
			matches := filter.Match(filters.AdapterFunc(func(path []string) (string, bool) {
				return labelled, slices.Equal(path, []string{"labels", labelPodUID})
			}))
			if matches != (labelled == wanted) {
				t.Errorf("filter for %q matches %q: %v", wanted, labelled, matches)
			}
		}
	}
}
