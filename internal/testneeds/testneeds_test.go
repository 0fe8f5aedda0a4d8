package testneeds_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/internal/testneeds"
)

// verdict is how a test was ended.
type verdict struct{ Skipped, Failed string }

// noting is a test that notes how it was ended, and goes on.
type noting struct {
	testing.TB
	verdict verdict
}

func (*noting) Helper() {}

func (n *noting) Skip(reason ...any) { n.verdict.Skipped = fmt.Sprint(reason...) }

func (n *noting) Fatal(reason ...any) { n.verdict.Failed = fmt.Sprint(reason...) }

func TestWhatIsMissingSkipsOrFails(t *testing.T) {
	const variable, reason = "TESTNEEDS_BINARY", "TESTNEEDS_BINARY names no server"
	tests := map[string]struct {
		required, path string
		want           verdict
	}{
		"there":               {path: "/server"},
		"there and required":  {required: "1", path: "/server"},
		"missing":             {want: verdict{Skipped: reason}},
		"missing and told no": {required: "0", want: verdict{Skipped: reason}},
		"missing in CI":       {required: "1", want: verdict{Failed: reason}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("REQUIRE_ALL", test.required)
			t.Setenv(variable, test.path)
			var got noting
			if path := testneeds.Binary(&got, variable); path != test.path {
				t.Errorf("path %q, want %q", path, test.path)
			}
			if diff := cmp.Diff(test.want, got.verdict); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
		})
	}
}
