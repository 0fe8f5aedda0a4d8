package capability

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMissingNamesWhatTheBoundingSetLacks(t *testing.T) {
	cases := map[string]struct {
		status, last string
		want         []string
	}{
		"all there":                  {status: "CapBnd:\t000001ffffffffff\nCapAmb:\t0\n", last: "40"},
		"no resource limits":         {status: "CapBnd:\t000001fffeffffff\n", last: "40", want: []string{"CAP_SYS_RESOURCE"}},
		"unknown to an older kernel": {status: "CapBnd:\t0000003fffffffff\n", last: "37"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := missing(c.status, c.last)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("missing capabilities (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMissingRefusesWhatItCannotRead(t *testing.T) {
	for name, status := range map[string]string{"no line": "Name: x\n", "no number": "CapBnd:\tzz\n"} {
		t.Run(name, func(t *testing.T) {
			if _, err := missing(status, "40"); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestFilterDropsOnlyTheNamedCapabilities(t *testing.T) {
	cases := map[string]struct{ in, want string }{
		"bundle": {
			in:   `{"process":{"capabilities":{"bounding":["CAP_KILL","CAP_SYS_RESOURCE"],"effective":["CAP_SYS_RESOURCE"]}}}`,
			want: `{"process":{"capabilities":{"bounding":["CAP_KILL"],"effective":[]}}}`,
		},
		"exec process": {
			in:   `{"capabilities":{"permitted":["CAP_SYS_RESOURCE","CAP_CHOWN"]}}`,
			want: `{"capabilities":{"permitted":["CAP_CHOWN"]}}`,
		},
		"no capabilities": {in: `{"process":{"args":["a"]}}`, want: `{"process":{"args":["a"]}}`},
		"large numbers":   {in: `{"hard":18446744073709551615}`, want: `{"hard":18446744073709551615}`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := Filter([]byte(c.in), []string{"CAP_SYS_RESOURCE"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, string(got)); diff != "" {
				t.Errorf("specification (-want +got):\n%s", diff)
			}
		})
	}
}
