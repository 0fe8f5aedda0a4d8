package evidence_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/evidence"
)

func TestPodRecordsKeepEveryByteOfAPath(t *testing.T) {
	want := evidence.PodRecord{Kind: evidence.PodRecordFile, File: &evidence.PodFile{
		Volume: "token", Path: "a\xff\nb", Type: evidence.EntrySymlink, Link: "\xfe", ModTime: "1.000000002",
	}}
	line, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(line), "\n") {
		t.Errorf("more than one line: %s", line)
	}
	var got evidence.PodRecord
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

func TestPodRecordsHaveOneMemberEach(t *testing.T) {
	records := map[string]evidence.PodRecord{
		"header":    {Kind: evidence.PodRecordHeader, Header: &evidence.PodFilesHeader{}},
		"source":    {Kind: evidence.PodRecordSource, Source: &evidence.PodSource{}},
		"mount":     {Kind: evidence.PodRecordMount, Mount: &evidence.PodMemoryMount{}},
		"volume":    {Kind: evidence.PodRecordVolume, Volume: &evidence.PodVolume{}},
		"file":      {Kind: evidence.PodRecordFile, File: &evidence.PodFile{}},
		"container": {Kind: evidence.PodRecordContainer, Container: &evidence.ContainerDescription{}},
		"gap":       {Kind: evidence.PodRecordGap, Gap: &evidence.PodGap{}},
		"trailer":   {Kind: evidence.PodRecordTrailer, Trailer: &evidence.PodFilesTrailer{}},
	}
	for name, record := range records {
		line, err := json.Marshal(record)
		if err != nil {
			t.Fatal(err)
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(line, &members); err != nil {
			t.Fatal(err)
		}
		if len(members) != 2 || string(members["kind"]) != `"`+name+`"` || members[name] == nil {
			t.Errorf("%s: %s", name, line)
		}
	}
}
