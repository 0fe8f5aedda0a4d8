package options_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/webhook/internal/options"
)

func TestParseTakesFlagsOverDefaults(t *testing.T) {
	got, err := options.Parse([]string{"--port", "1", "--metrics-address", "0", "--certificate-dir", "/c"})
	if err != nil {
		t.Fatal(err)
	}
	want := options.Options{
		Port: 1, MetricsAddress: "0", ProbeAddress: ":8081", CertificateDir: "/c",
		ControllerAccount: "system:serviceaccount:ugallu-system:ugallu-forensics",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestParseRefusesWhatCannotWork(t *testing.T) {
	tests := map[string]struct {
		args []string
		want []string
	}{
		"every bad value is named": {
			args: []string{"--port=0", "--probe-address=", "--certificate-dir=x", "--controller-account="},
			want: []string{"--port", "--probe-address", "--certificate-dir", "--controller-account"},
		},
		"an unknown flag": {args: []string{"--prot=1"}, want: []string{"prot"}},
		"an argument":     {args: []string{"serve"}, want: []string{`"serve"`}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := options.Parse(tt.args)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not name %s", err, want)
				}
			}
		})
	}
}
