package options_test

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/nodeagent/internal/options"
)

func environment(name string) string {
	return map[string]string{
		"NODE_NAME": "worker", "POD_NAME": "agent-x", "POD_NAMESPACE": "ns", "POD_UID": "u1", "SERVICE_ACCOUNT": "sa",
	}[name]
}

func TestParseFillsInDefaultsAndTheOwnPod(t *testing.T) {
	got, err := options.Parse([]string{"--bpffs=/bpf"}, environment, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want := options.Options{
		ContainerdSocket: "/run/containerd/containerd.sock", WORMCredentialsDir: "/var/run/ugallu/worm",
		CgroupRoot: "/sys/fs/cgroup", BPFFS: "/bpf", StateDir: "/var/lib/ugallu-forensics", MetricsAddress: ":8080", ProbeAddress: ":8081",
		Pod: options.Pod{Namespace: "ns", ServiceAccount: "sa", Name: "agent-x", UID: "u1", NodeName: "worker"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	if account := got.Pod.Account(); account != "system:serviceaccount:ns:sa" {
		t.Errorf("Account = %s", account)
	}
}

func TestParseNamesEverythingThatIsWrong(t *testing.T) {
	none := func(string) string { return "" }
	_, err := options.Parse([]string{"--bpffs=bpf", "--cgroup-root="}, none, io.Discard)
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range []string{"--bpffs", "--cgroup-root", "NODE_NAME", "POD_NAME", "POD_NAMESPACE", "POD_UID", "SERVICE_ACCOUNT"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("error does not name %s: %v", name, err)
		}
	}
	if _, err := options.Parse([]string{"serve"}, environment, io.Discard); err == nil {
		t.Error("an argument that is no flag is accepted")
	}
}
