package engine

import (
	"os"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConfigurationNamesTheWrapperOnlyWhereThereIsOne(t *testing.T) {
	cases := map[string]struct {
		wrapper string
		want    daemon
	}{
		"all capabilities": {want: daemon{
			DataRoot: "/s/data", ExecRoot: "/run/ugallu-engine", PIDFile: "/run/ugallu-engine.pid",
			Hosts: []string{"unix:///var/run/docker.sock"},
		}},
		"one withheld": {wrapper: "/w", want: daemon{
			DataRoot: "/s/data", ExecRoot: "/run/ugallu-engine", PIDFile: "/run/ugallu-engine.pid",
			Hosts:          []string{"unix:///var/run/docker.sock"},
			DefaultRuntime: "runc-capabilities", Runtimes: map[string]ociRuntime{"runc-capabilities": {Path: "/w"}},
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, configuration("/s", c.wrapper)); diff != "" {
				t.Errorf("configuration (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRunsTellsAnotherProgramWithTheSameIDApart(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	if !runs(own, "engine.test") {
		t.Error("our own process is not seen")
	}
	if runs(own, "dockerd") {
		t.Error("a test counts as dockerd")
	}
	if runs("", "dockerd") {
		t.Error("no id counts as a process")
	}
}
