package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSpecificationsFindsTheFilesThatHoldCapabilities(t *testing.T) {
	cases := map[string]struct {
		args []string
		want []string
	}{
		"create": {args: []string{"--root", "/r", "create", "--bundle", "/b", "id"}, want: []string{"/b/config.json"}},
		"exec":   {args: []string{"exec", "--process", "/p.json", "--detach", "id"}, want: []string{"/p.json"}},
		"joined": {args: []string{"run", "--bundle=/b", "id"}, want: []string{"/b/config.json"}},
		"start":  {args: []string{"start", "id"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, specifications(c.args)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}
