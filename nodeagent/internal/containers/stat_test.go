package containers

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
			if got, err := parseStat(content); err != nil || got != (stat{parent: 7, exiting: true, started: 990}) {
				t.Errorf("parseStat = %+v, %v", got, err)
			}
		})
	}
	for _, content := range []string{"", "71", "71 (x) S 1"} {
		if _, err := parseStat(content); !errors.Is(err, errStat) {
			t.Errorf("parseStat(%q) = %v, want errStat", content, err)
		}
	}
}
