package hold

import "testing"

func TestKnowsBackReferences(t *testing.T) {
	tests := map[string]bool{
		"2.2.9": true, "v2.2.1": true, "2.2.9+unknown": true, "2.10.0": true, "v3.0.0-rc.1": true,
		"2.1.4": false, "1.7.30": false, "1.6.20~ds1": false, "": false, "unknown": false, "v": false,
	}
	for version, want := range tests {
		if got := knowsBackReferences(version); got != want {
			t.Errorf("%q: %t, want %t", version, got, want)
		}
	}
}
