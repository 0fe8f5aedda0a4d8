package options

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// Commands.
const (
	Verify = "verify"
	Fetch  = "fetch"
	Status = "status"
)

// Formats of output.
const (
	FormatTable = "table"
	FormatJSON  = "json"
)

// Usage is the text of --help.
const Usage = `kubectl forensics <command>

  verify <s3://bucket/key | folder>            check a custody record or manifest and everything that it leads to; a key
                                               that ends in a slash is an incident, whose newest record counts
  fetch <s3://bucket/key> <folder>             download all of it, checked on the way, for verify to accept offline
  status <incident | pod> [-n namespace]       steps, conditions, progress and release of an incident

kubectl forensics <command> --help lists the flags.

Exit codes of verify and fetch: 0 verified, 1 refused, 2 wrong usage, 3 something could not be read, 4 nothing is wrong, but
no custody record covers the whole. Of status: 0, 2 and 3.
`

// Options of one command, validated.
type Options struct {
	Command string
	// Target of verify and fetch: an s3 URL or a folder. Of status: the name of an incident or a pod.
	Target string
	// Folder that fetch fills.
	Folder string
	Format string

	Trust Trust
	Store Store

	// File and Artifact of verify --file.
	File     string
	Artifact string

	Namespace  string
	Kubeconfig string
	Context    string
}

// Trust is what the caller believes in.
type Trust struct {
	RootFile         string
	Identity, Issuer string
	KeyFiles         []string
}

// Store says how to read a bucket.
type Store struct {
	Endpoint, Region, CAFile, CredentialsFile, Profile string
}

// ErrHelp is returned when help was asked for; it was written already.
var ErrHelp = flag.ErrHelp

// many is a flag that may be given several times.
type many []string

// String is that of flag.Value.
func (m *many) String() string { return strings.Join(*m, ",") }

// Set is that of flag.Value.
func (m *many) Set(value string) error {
	*m = append(*m, value)
	return nil
}

// Parse reads the arguments after the program's name; help and complaints go to out.
func Parse(args []string, out io.Writer) (Options, error) {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") || args[0] == "help" {
		if _, err := io.WriteString(out, Usage); err != nil {
			return Options{}, fmt.Errorf("write usage: %w", err)
		}
		if len(args) == 0 {
			return Options{}, errors.New("a command is required")
		}
		return Options{}, ErrHelp
	}
	o := Options{Command: args[0]}
	flags := flag.NewFlagSet("kubectl forensics "+o.Command, flag.ContinueOnError)
	flags.SetOutput(out)
	switch o.Command {
	case Verify:
		o.trustFlags(flags)
		o.storeFlags(flags)
		flags.StringVar(&o.File, "file", "", "path of one file: check it alone, by its place in the index, and download no more than that")
		flags.StringVar(&o.Artifact, "artifact", "", "name of the only artifact to look for --file in")
	case Fetch:
		o.trustFlags(flags)
		o.storeFlags(flags)
	case Status:
		flags.StringVar(&o.Namespace, "namespace", "", "namespace of the pod; empty is every one")
		flags.StringVar(&o.Namespace, "n", "", "short for --namespace")
		flags.StringVar(&o.Kubeconfig, "kubeconfig", "", "file to reach the API server with; empty is kubectl's own")
		flags.StringVar(&o.Context, "context", "", "context of that file; empty is the current one")
	default:
		return Options{}, fmt.Errorf("there is no command %q", o.Command)
	}
	flags.StringVar(&o.Format, "o", FormatTable, "output: table or json")
	rest, err := interspersed(flags, args[1:])
	if err != nil {
		return Options{}, err
	}
	return o, o.take(rest)
}

// interspersed parses flags before, between and after the arguments, as kubectl does.
func interspersed(flags *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err //nolint:wrapcheck // flag has said it already, and ErrHelp is compared
		}
		if flags.NArg() == 0 {
			return rest, nil
		}
		rest, args = append(rest, flags.Arg(0)), flags.Args()[1:]
	}
}

func (o *Options) trustFlags(flags *flag.FlagSet) {
	flags.StringVar(&o.Trust.RootFile, "trusted-root", "", "file with the Sigstore trusted root, in JSON (required)")
	flags.StringVar(&o.Trust.Identity, "identity", "", "the one identity that may sign with a certificate; goes with --issuer, and says nothing of keys")
	flags.StringVar(&o.Trust.Issuer, "issuer", "", "issuer of the tokens that prove the identity")
	flags.Var((*many)(&o.Trust.KeyFiles), "key", "file with a public key that may sign, in PEM; several times for several keys, and beside --identity where each statement has to be signed by both")
}

func (o *Options) storeFlags(flags *flag.FlagSet) {
	flags.StringVar(&o.Store.Endpoint, "endpoint", "https://s3.amazonaws.com", "address of the store, with scheme")
	flags.StringVar(&o.Store.Region, "region", "", "region of the store")
	flags.StringVar(&o.Store.CAFile, "ca-file", "", "file with the certificates that the store's must chain to, in PEM")
	flags.StringVar(&o.Store.CredentialsFile, "credentials-file", "", "credentials in the format of AWS; the environment (AWS_*, MINIO_*) comes first")
	flags.StringVar(&o.Store.Profile, "profile", "", "profile of the credentials file")
}

// take assigns the arguments that are no flags, and validates the whole.
func (o *Options) take(rest []string) error {
	wanted := 1
	if o.Command == Fetch {
		wanted = 2
	}
	if len(rest) != wanted {
		return fmt.Errorf("%s takes %d arguments, got %d", o.Command, wanted, len(rest))
	}
	o.Target = rest[0]
	if o.Command == Fetch {
		o.Folder = rest[1]
	}
	var errs []error
	if o.Format != FormatTable && o.Format != FormatJSON {
		errs = append(errs, fmt.Errorf("-o: %q is not %s or %s", o.Format, FormatTable, FormatJSON))
	}
	if o.Artifact != "" && o.File == "" {
		errs = append(errs, errors.New("--artifact goes with --file"))
	}
	if o.Command != Status {
		errs = append(errs, o.Trust.validate())
	}
	if o.Command == Fetch && !o.Remote() {
		errs = append(errs, fmt.Errorf("fetch reads from s3://bucket/key, not from %q", o.Target))
	}
	return errors.Join(errs...)
}

func (t Trust) validate() error {
	var errs []error
	if t.RootFile == "" {
		errs = append(errs, errors.New("--trusted-root: required"))
	}
	if (t.Identity == "") != (t.Issuer == "") {
		errs = append(errs, errors.New("--identity and --issuer go together: a name means nothing without who vouches for it"))
	}
	if t.Identity == "" && len(t.KeyFiles) == 0 {
		errs = append(errs, errors.New("--identity with --issuer, or --key: one of them is required, or anybody could have signed"))
	}
	return errors.Join(errs...)
}

// Remote says whether the target is in a bucket.
func (o *Options) Remote() bool { return strings.HasPrefix(o.Target, "s3://") }
