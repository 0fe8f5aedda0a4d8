package evidence_test

import (
	"testing"

	"ugallu.io/forensics/api/evidence"
)

func TestOCIWhiteoutNamesWhatALayerOfAnImageWould(t *testing.T) {
	whiteout, opaque := &evidence.Overlay{Whiteout: true}, &evidence.Overlay{Opaque: true}
	tests := map[string]struct {
		entry evidence.Entry
		want  string
	}{
		"deleted":             {evidence.Entry{Path: "a/b", Overlay: whiteout}, "a/.wh.b"},
		"deleted at the root": {evidence.Entry{Path: "b", Overlay: whiteout}, ".wh.b"},
		"raw":                 {evidence.Entry{Path: "a/\ufffd", PathBytes: []byte("a/\xff"), Overlay: whiteout}, "a/.wh.\xff"},
		"opaque":              {evidence.Entry{Path: "a/b", Overlay: opaque}, "a/b/.wh..wh..opq"},
		"opaque root":         {evidence.Entry{Path: ".", Overlay: opaque}, ".wh..wh..opq"},
		"a file":              {evidence.Entry{Path: "a"}, ""},
		"looks like one":      {evidence.Entry{Path: "a/.wh.b"}, ""},
		"copied up":           {evidence.Entry{Path: "a", Overlay: &evidence.Overlay{CopiedUp: true}}, ""},
		// ".wh..wh..opq" would hide the whole folder.
		"deleted, but OCI has no name for it": {evidence.Entry{Path: "a/.wh..opq", Overlay: whiteout}, ""},
	}
	for name, test := range tests {
		if got, ok := test.entry.OCIWhiteout(); got != test.want || ok != (test.want != "") {
			t.Errorf("%s: %q, %t", name, got, ok)
		}
	}
}
