package options

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
)

// Options is everything that the command line and the environment say. It is passed by value and never changes.
type Options struct {
	// ContainerdSocket of the node.
	ContainerdSocket string
	// WORMCredentialsDir holds the files access-key and secret-key.
	WORMCredentialsDir string
	// CgroupRoot is where the node has its cgroup file systems, at the same path as on the node.
	CgroupRoot string
	// BPFFS is where the node has its bpf file system, at the same path as on the node.
	BPFFS string
	// StateDir is on the node's own disk: what was last known outlives the pod there, and a restart of the node.
	StateDir string
	// MetricsAddress to serve /metrics on; "0" serves none.
	MetricsAddress string
	// ProbeAddress to serve /healthz and /readyz on; "0" serves none.
	ProbeAddress string
	// Pod is this process's own pod, as the downward API tells it.
	Pod Pod
}

// Pod identifies the pod that a process runs in.
type Pod struct {
	Namespace      string
	ServiceAccount string
	Name           string
	UID            string
	NodeName       string
}

// Account is the name that the API server knows this process by.
func (p Pod) Account() string {
	return fmt.Sprintf("system:serviceaccount:%s:%s", p.Namespace, p.ServiceAccount)
}

// Parse reads flags from args and the pod's identity through getenv. The error names every flag and variable that is
// wrong; flag.ErrHelp is returned when help was asked for and printed to output.
func Parse(args []string, getenv func(string) string, output io.Writer) (Options, error) {
	var o Options
	flags := flag.NewFlagSet("nodeagent", flag.ContinueOnError)
	flags.SetOutput(output)
	flags.StringVar(&o.ContainerdSocket, "containerd-socket", "/run/containerd/containerd.sock", "socket of the node's containerd")
	flags.StringVar(&o.WORMCredentialsDir, "worm-credentials-dir", "/var/run/ugallu/worm", "folder with the files access-key and secret-key")
	flags.StringVar(&o.CgroupRoot, "cgroup-root", "/sys/fs/cgroup", "the node's cgroup file systems, at the same path as on the node")
	flags.StringVar(&o.BPFFS, "bpffs", "/sys/fs/bpf", "the node's bpf file system, at the same path as on the node")
	flags.StringVar(&o.StateDir, "state-dir", "/var/lib/ugallu-forensics", "folder on the node's disk for what was last known of its orders")
	flags.StringVar(&o.MetricsAddress, "metrics-address", ":8080", "address to serve /metrics on, 0 for none")
	flags.StringVar(&o.ProbeAddress, "probe-address", ":8081", "address to serve /healthz and /readyz on, 0 for none")
	if err := flags.Parse(args); err != nil {
		return Options{}, fmt.Errorf("parse flags: %w", err)
	}
	if rest := flags.Args(); len(rest) > 0 {
		return Options{}, fmt.Errorf("parse flags: unexpected argument %q", rest[0])
	}
	o.Pod = Pod{
		Namespace: getenv("POD_NAMESPACE"), ServiceAccount: getenv("SERVICE_ACCOUNT"),
		Name: getenv("POD_NAME"), UID: getenv("POD_UID"), NodeName: getenv("NODE_NAME"),
	}
	return o, o.validate()
}

func (o Options) validate() error {
	var errs []error
	for _, path := range []struct{ flag, value string }{
		{"containerd-socket", o.ContainerdSocket},
		{"worm-credentials-dir", o.WORMCredentialsDir},
		{"cgroup-root", o.CgroupRoot},
		{"bpffs", o.BPFFS},
		{"state-dir", o.StateDir},
	} {
		if !filepath.IsAbs(path.value) {
			errs = append(errs, fmt.Errorf("--%s: %q is not an absolute path", path.flag, path.value))
		}
	}
	for _, variable := range []struct{ name, value string }{
		{"NODE_NAME", o.Pod.NodeName},
		{"POD_NAME", o.Pod.Name},
		{"POD_NAMESPACE", o.Pod.Namespace},
		{"POD_UID", o.Pod.UID},
		{"SERVICE_ACCOUNT", o.Pod.ServiceAccount},
	} {
		if variable.value == "" {
			errs = append(errs, fmt.Errorf("%s is not set", variable.name))
		}
	}
	return errors.Join(errs...)
}
