package options_test

import (
	"errors"
	"flag"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/controller/internal/options"
)

func environment(name string) string {
	return map[string]string{
		"POD_NAMESPACE": "ugallu-system", "SERVICE_ACCOUNT": "ugallu-forensics",
		"POD_NAME": "ugallu-forensics-0", "POD_UID": "uid-0", "NODE_NAME": "worker",
	}[name]
}

func TestParseGivesDefaultsAndIdentity(t *testing.T) {
	got, err := options.Parse([]string{"--controllers=trigger, incident,config,trigger", "--leader-elect"}, environment, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want := options.Options{
		Controllers:        []string{"config", "incident", "trigger"},
		WORMCredentialsDir: "/var/run/ugallu/worm", TransitTokenFile: "/var/run/ugallu/transit/token",
		MetricsAddress: ":8080", ProbeAddress: ":8081", LeaderElect: true,
		Pod: options.Pod{
			Namespace: "ugallu-system", ServiceAccount: "ugallu-forensics",
			Name: "ugallu-forensics-0", UID: "uid-0", NodeName: "worker",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if got.LeaseName() != "ugallu-config-incident-trigger" || got.Pod.Account() != "system:serviceaccount:ugallu-system:ugallu-forensics" {
		t.Fatalf("lease %q, account %q", got.LeaseName(), got.Pod.Account())
	}
	if !got.Runs(options.Trigger) || got.Runs(options.Attestor) {
		t.Fatal("the set is not the one asked for")
	}
}

func TestParseNamesWhatIsWrong(t *testing.T) {
	tests := map[string]struct {
		args   []string
		getenv func(string) string
		want   []string
	}{
		"no set":          {nil, environment, []string{"--controllers is required"}},
		"unknown":         {[]string{"--controllers=trigger,unknown"}, environment, []string{`"unknown" is none of`}},
		"unknown flag":    {[]string{"--nothing"}, environment, []string{"nothing"}},
		"argument":        {[]string{"--controllers=config", "more"}, environment, []string{`unexpected argument "more"`}},
		"address":         {[]string{"--controllers=config", "--metrics-address=8080"}, environment, []string{"--metrics-address"}},
		"several at once": {[]string{"--probe-address=x"}, func(string) string { return "" }, []string{"--controllers", "--probe-address", "POD_NAMESPACE", "SERVICE_ACCOUNT", "POD_NAME", "POD_UID", "NODE_NAME"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := options.Parse(test.args, test.getenv, io.Discard)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not name %q", err, want)
				}
			}
		})
	}
}

func TestParsePrintsHelp(t *testing.T) {
	var help strings.Builder
	_, err := options.Parse([]string{"--help"}, environment, &help)
	if !errors.Is(err, flag.ErrHelp) || !strings.Contains(help.String(), "-controllers") {
		t.Fatalf("error %v, help %q", err, help.String())
	}
}
