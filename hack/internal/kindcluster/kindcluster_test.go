package kindcluster

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/hack/internal/state"
)

func TestConfigFollowsTheSettings(t *testing.T) {
	got := settings{Image: "ugallu/node:1", OwnNetwork: true, KeepScores: true}.config()
	want := `kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
name: ugallu
networking:
  ipFamily: ipv4
  disableDefaultCNI: true
nodes:
- role: control-plane
  image: ugallu/node:1
- role: worker
  image: ugallu/node:1
containerdConfigPatches:
- |-
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
  [plugins."io.containerd.grpc.v1.cri"]
    restrict_oom_score_adj = true
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	plain := settings{Image: "kindest/node:v1.34.4"}.config()
	if strings.Contains(plain, "restrict_oom_score_adj") || !strings.Contains(plain, "disableDefaultCNI: false") {
		t.Errorf("a machine with everything gets:\n%s", plain)
	}
}

func TestJudgeKeepsOnlyAClusterOfTheWantedSettings(t *testing.T) {
	wanted := settings{Image: "a"}
	both := map[string]bool{controlPlane: true, worker: true}
	cases := map[string]struct {
		recorded settings
		running  map[string]bool
		want     verdict
	}{
		"nothing there":            {want: create},
		"as wanted":                {recorded: wanted, running: both, want: use},
		"of another image":         {recorded: settings{Image: "b"}, running: both, want: recreate},
		"interrupted while made":   {running: both, want: recreate},
		"one node lost":            {recorded: wanted, running: map[string]bool{controlPlane: true}, want: recreate},
		"worker stopped":           {recorded: wanted, running: map[string]bool{controlPlane: true, worker: false}, want: resume},
		"machine was started anew": {recorded: wanted, running: map[string]bool{controlPlane: false, worker: false}, want: resume},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := judge(c.recorded, wanted, c.running); got != c.want {
				t.Errorf("judge = %d, want %d", got, c.want)
			}
		})
	}
}

func TestScriptRoutesOnlyToOtherNodesPods(t *testing.T) {
	all := []state.Node{{Name: "a", PodCIDR: "10.244.0.0/24"}, {Name: "b", PodCIDR: "10.244.1.0/24"}}
	got := script(all[0], all, true)
	if !strings.Contains(got, "ip route replace 10.244.1.0/24 via") || strings.Contains(got, "10.244.0.0/24") {
		t.Errorf("script of a:\n%s", got)
	}
	if got := script(all[0], all, false); strings.Contains(got, "ip route") {
		t.Errorf("script beside kind's own network:\n%s", got)
	}
}

func TestParseNodesCountsOnlyReportsSinceTheRestart(t *testing.T) {
	raw := `{"items":[
		{"metadata":{"name":"b"},"spec":{"podCIDR":"10.244.1.0/24"},"status":{"addresses":[{"type":"InternalIP","address":"172.18.0.3"}],
		 "conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":"2026-01-01T00:00:05Z"}]}},
		{"metadata":{"name":"a"},"spec":{"podCIDR":"10.244.0.0/24"},"status":{"addresses":[{"type":"Hostname","address":"a"}],
		 "conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":"2026-01-01T00:00:01Z"}]}}]}`
	list, ready, err := parseNodes([]byte(raw), time.Date(2026, 1, 1, 0, 0, 3, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	want := []state.Node{{Name: "a", PodCIDR: "10.244.0.0/24"}, {Name: "b", IP: "172.18.0.3", PodCIDR: "10.244.1.0/24"}}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	if ready != 1 {
		t.Errorf("ready = %d, want 1", ready)
	}
}

func TestThawReachesWhatIsFrozenInTheNodeAndNothingElse(t *testing.T) {
	root := t.TempDir()
	files := map[string][2]string{
		"freezer/docker/0123abcd/kubelet/pod/freezer.state": {"FROZEN\n", "THAWED"},
		"freezer/docker/0123abcd/freezer.state":             {"THAWED\n", "THAWED\n"},
		"system.slice/docker-0123abcd.scope/cgroup.freeze":  {"1\n", "0"},
		"freezer/docker/another/freezer.state":              {"FROZEN\n", "FROZEN\n"},
		"freezer/docker/0123abcd/cgroup.procs":              {"1\n", "1\n"},
	}
	for name, content := range files {
		file := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(content[0]), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := thawBelow(root, "0123abcd"); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || string(got) != content[1] {
			t.Errorf("%s holds %q, want %q (%v)", name, got, content[1], err)
		}
	}
}
