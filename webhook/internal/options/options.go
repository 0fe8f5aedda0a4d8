package options

import (
	"errors"
	"flag"
	"fmt"
	"path/filepath"
)

const maxPort = 65535

// Options of the webhook, validated.
type Options struct {
	// Port that the API server calls.
	Port int
	// MetricsAddress serves /metrics; "0" turns it off.
	MetricsAddress string
	// ProbeAddress serves /healthz and /readyz.
	ProbeAddress string
	// CertificateDir is a writable folder, in memory if possible, for the serving certificate and its key.
	CertificateDir string
	// ControllerAccount is the user name of the one account that may change frozen pods and report Forensic events.
	ControllerAccount string
}

// Parse reads the arguments after the program's name.
func Parse(args []string) (Options, error) {
	var o Options
	flags := flag.NewFlagSet("webhook", flag.ContinueOnError)
	flags.IntVar(&o.Port, "port", 9443, "port that the API server calls")
	flags.StringVar(&o.MetricsAddress, "metrics-address", ":8080", "address of /metrics; 0 turns it off")
	flags.StringVar(&o.ProbeAddress, "probe-address", ":8081", "address of /healthz and /readyz")
	flags.StringVar(&o.CertificateDir, "certificate-dir", "/run/ugallu/certificate", "writable folder for the serving certificate")
	flags.StringVar(&o.ControllerAccount, "controller-account", "system:serviceaccount:ugallu-system:ugallu-forensics",
		"user name of the account that may change frozen pods and report Forensic events")
	if err := flags.Parse(args); err != nil {
		return Options{}, fmt.Errorf("parse flags: %w", err)
	}
	if flags.NArg() > 0 {
		return Options{}, fmt.Errorf("parse flags: unexpected argument %q", flags.Arg(0))
	}
	if err := o.validate(); err != nil {
		return Options{}, err
	}
	return o, nil
}

func (o Options) validate() error {
	var errs []error
	if o.Port < 1 || o.Port > maxPort {
		errs = append(errs, fmt.Errorf("--port: %d is not between 1 and %d", o.Port, maxPort))
	}
	if o.ProbeAddress == "" || o.ProbeAddress == "0" {
		errs = append(errs, errors.New("--probe-address: required, readiness keeps calls away until the certificate is there"))
	}
	if !filepath.IsAbs(o.CertificateDir) {
		errs = append(errs, fmt.Errorf("--certificate-dir: %q is not an absolute path", o.CertificateDir))
	}
	if o.ControllerAccount == "" {
		errs = append(errs, errors.New("--controller-account: required, without it nobody could release a pod"))
	}
	return errors.Join(errs...)
}
