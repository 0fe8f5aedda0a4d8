package options

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
)

// The controllers that one process can run; each workload runs its own set.
const (
	Trigger  = "trigger"
	Incident = "incident"
	Config   = "config"
	Readback = "readback"
	Attestor = "attestor"
)

// Known lists every controller, in the order help prints them.
func Known() []string { return []string{Trigger, Incident, Config, Readback, Attestor} }

// Options is everything that the command line and the environment say. It is passed by value and never changes.
type Options struct {
	// Controllers to run: sorted, without duplicates, at least one.
	Controllers []string
	// WORMCredentialsDir holds the files access-key and secret-key.
	WORMCredentialsDir string
	// TransitTokenFile holds the token for the transit engine.
	TransitTokenFile string
	// MetricsAddress to serve /metrics on; "0" serves none.
	MetricsAddress string
	// ProbeAddress to serve /healthz and /readyz on; "0" serves none.
	ProbeAddress string
	// LeaderElect makes replicas take turns.
	LeaderElect bool
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

// Runs says whether the set contains a controller.
func (o Options) Runs(controller string) bool { return slices.Contains(o.Controllers, controller) }

// LeaseName names the leader election of this set, so that workloads with other sets never compete for it.
func (o Options) LeaseName() string { return "ugallu-" + strings.Join(o.Controllers, "-") }

// Parse reads flags from args and the pod's identity through getenv. The error names every flag and variable that is
// wrong; flag.ErrHelp is returned when help was asked for and printed to output.
func Parse(args []string, getenv func(string) string, output io.Writer) (Options, error) {
	var o Options
	var controllers string
	flags := flag.NewFlagSet("controller", flag.ContinueOnError)
	flags.SetOutput(output)
	flags.StringVar(&controllers, "controllers", "", "comma-separated set of "+strings.Join(Known(), ", "))
	flags.StringVar(&o.WORMCredentialsDir, "worm-credentials-dir", "/var/run/ugallu/worm", "folder with the files access-key and secret-key")
	flags.StringVar(&o.TransitTokenFile, "transit-token-file", "/var/run/ugallu/transit/token", "file with the transit engine's token")
	flags.StringVar(&o.MetricsAddress, "metrics-address", ":8080", "address to serve /metrics on, 0 for none")
	flags.StringVar(&o.ProbeAddress, "probe-address", ":8081", "address to serve /healthz and /readyz on, 0 for none")
	flags.BoolVar(&o.LeaderElect, "leader-elect", false, "act only while holding the lease of this set of controllers")
	if err := flags.Parse(args); err != nil {
		return Options{}, fmt.Errorf("parse flags: %w", err)
	}
	if rest := flags.Args(); len(rest) > 0 {
		return Options{}, fmt.Errorf("parse flags: unexpected argument %q", rest[0])
	}
	o.Controllers = split(controllers)
	o.Pod = Pod{
		Namespace: getenv("POD_NAMESPACE"), ServiceAccount: getenv("SERVICE_ACCOUNT"),
		Name: getenv("POD_NAME"), UID: getenv("POD_UID"), NodeName: getenv("NODE_NAME"),
	}
	if err := o.validate(); err != nil {
		return Options{}, err
	}
	return o, nil
}

func split(list string) []string {
	var out []string
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (o Options) validate() error {
	var errs []error
	if len(o.Controllers) == 0 {
		errs = append(errs, fmt.Errorf("--controllers is required: a set of %s", strings.Join(Known(), ", ")))
	}
	for _, name := range o.Controllers {
		if !slices.Contains(Known(), name) {
			errs = append(errs, fmt.Errorf("--controllers: %q is none of %s", name, strings.Join(Known(), ", ")))
		}
	}
	errs = append(errs, address("--metrics-address", o.MetricsAddress), address("--probe-address", o.ProbeAddress))
	identity := map[string]string{
		"POD_NAMESPACE": o.Pod.Namespace, "SERVICE_ACCOUNT": o.Pod.ServiceAccount,
		"POD_NAME": o.Pod.Name, "POD_UID": o.Pod.UID, "NODE_NAME": o.Pod.NodeName,
	}
	for _, name := range []string{"POD_NAMESPACE", "SERVICE_ACCOUNT", "POD_NAME", "POD_UID", "NODE_NAME"} {
		if identity[name] == "" {
			errs = append(errs, fmt.Errorf("environment variable %s is required: set it from the downward API", name))
		}
	}
	return errors.Join(errs...)
}

func address(name, value string) error {
	if value == "0" {
		return nil
	}
	if _, _, err := net.SplitHostPort(value); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
