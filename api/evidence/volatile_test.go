package evidence_test

import (
	"encoding/json"
	"testing"

	"ugallu.io/forensics/api/evidence"
)

func TestTextKeepsEveryByte(t *testing.T) {
	for text, want := range map[string]string{
		"":              `""`,
		"plain <&> \"é": `"plain <&> \"é"`,
		"nul\x00":       `"nul\u0000"`,
		"raw\xff\xfe":   `{"bytes":"cmF3//4="}`,
		"\xed\xa0\x80":  `{"bytes":"7aCA"}`,
		`{"bytes":"x"}`: `"{\"bytes\":\"x\"}"`,
	} {
		type record struct {
			Text evidence.Text `json:"text"`
		}
		got, err := evidence.Canonical(record{evidence.Text(text)})
		if err != nil || string(got) != `{"text":`+want+`}` {
			t.Errorf("%q becomes %s, %v; want %s", text, got, err, want)
		}
		var again record
		if err := json.Unmarshal(got, &again); err != nil || string(again.Text) != text {
			t.Errorf("%q comes back as %q, %v", text, again.Text, err)
		}
	}
	for _, bad := range []string{`1`, `{"bytes":1}`, `{"bytes":"?"}`, `[]`} {
		var text evidence.Text
		if err := json.Unmarshal([]byte(bad), &text); err == nil {
			t.Errorf("%s is read as %q", bad, text)
		}
	}
}

func TestVolatileRecordsKeepNumbersThatNoDoubleHolds(t *testing.T) {
	const odd = 1<<63 + 1
	record := evidence.VolatileProcess{
		Kind: evidence.VolatileKindProcess, StartTicks: odd, Namespaces: &evidence.VolatileNamespaces{Network: odd},
		Executable:  &evidence.VolatileObject{Inode: odd, Size: odd},
		Maps:        []evidence.VolatileMapping{{Inode: odd}},
		Descriptors: []evidence.VolatileDescriptor{{Inode: odd, Offset: 1<<62 + 1, Socket: &evidence.VolatileSocket{Inode: odd}}},
	}
	line, err := evidence.Canonical(record)
	if err != nil {
		t.Fatal(err)
	}
	var again evidence.VolatileProcess
	if err := json.Unmarshal(line, &again); err != nil {
		t.Fatal(err)
	}
	second, err := evidence.Canonical(again)
	if err != nil || string(second) != string(line) || again.Descriptors[0].Offset != 1<<62+1 || again.Maps[0].Inode != odd {
		t.Errorf("%s comes back as %s, %v", line, second, err)
	}
}
