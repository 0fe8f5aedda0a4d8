package proc

import (
	"errors"
	"testing"
)

func TestStatIsReadBehindTheName(t *testing.T) {
	const rest = " S 7 71 71 0 -1 4194564 105 0 0 0 0 0 0 0 20 0 1 0 990 2990080 404 18446744073709551615\n"
	tests := map[string]string{
		"plain": "71 (sleep)" + rest, "parentheses and spaces": "71 (a) S 1 (b) c)" + rest, "a line feed": "71 (a\nb)" + rest,
	}
	for name, content := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := parse([]byte(content)); err != nil || got != (Stat{State: "S", Parent: 7, Exiting: true, Started: 990}) {
				t.Errorf("parse = %+v, %v", got, err)
			}
		})
	}
	for _, content := range []string{"", "71", "71 (x) S 1"} {
		if _, err := parse([]byte(content)); !errors.Is(err, errStat) {
			t.Errorf("parse(%q) = %v, want errStat", content, err)
		}
	}
}
