package proc

import "testing"

func TestUnescapeUndoesTheKernelsEscapesAndNothingElse(t *testing.T) {
	for field, want := range map[string]string{
		"": "", "/plain": "/plain",
		`/a\040b\011c\012d\134e\043f`: "/a b\tc\nd\\e#f",
		`/end\040`:                    "/end ",
		`/ÿ\377`:                      "/ÿ\xff",
		`\`:                           `\`,
		`/short\04`:                   `/short\04`,
		`/no\089\400octal`:            `/no\089\400octal`,
		`/twice\134040`:               `/twice\040`,
	} {
		if got := Unescape(field); got != want {
			t.Errorf("%q is %q, want %q", field, got, want)
		}
	}
}
