package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/nodeagent/internal/capture"
	"ugallu.io/forensics/nodeagent/internal/proc"
	"ugallu.io/forensics/nodeagent/internal/volatile"
)

// self is this process, by its id and start.
func self(t *testing.T) volatile.Process {
	t.Helper()
	started, err := proc.Started(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return volatile.Process{PID: os.Getpid(), StartTicks: started}
}

func TestAnIdThatAnotherProcessHasByNowIsAGap(t *testing.T) {
	us := self(t)
	other := us
	other.StartTicks--
	elsewhere := us
	elsewhere.ContainerID = "another"
	ended := volatile.Process{PID: 1 << 30, StartTicks: 1}
	tests := map[string]struct {
		noted  volatile.Process
		listed []volatile.Process
		same   []volatile.Process
		why    string
	}{
		"the same":                          {us, []volatile.Process{us}, []volatile.Process{us}, ""},
		"its container was another's":       {us, []volatile.Process{elsewhere}, []volatile.Process{elsewhere}, ""},
		"started later":                     {other, []volatile.Process{us}, nil, "its id is another process's"},
		"started later and not the pod's":   {other, nil, nil, "its id is another process's"},
		"not the pod's any more":            {us, nil, nil, "not among the pod's any more"},
		"ended and not there":               {ended, nil, nil, ""},
		"ended since it was listed the 2nd": {ended, []volatile.Process{{PID: ended.PID, StartTicks: 2}}, nil, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			same, gaps, err := stillThere([]volatile.Process{tt.noted}, tt.listed)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.same, same); diff != "" {
				t.Errorf("processes (-want +got):\n%s", diff)
			}
			if (tt.why == "") != (len(gaps) == 0) || (len(gaps) > 0 && !strings.Contains(gaps[0].Message, tt.why)) {
				t.Errorf("gaps %+v", gaps)
			}
		})
	}
}

// TestMemoryOfAnotherProcessIsNotReadUnderTheIdOfOneThatEnded asks for a process that started before this one did.
func TestMemoryOfAnotherProcessIsNotReadUnderTheIdOfOneThatEnded(t *testing.T) {
	action := &v1alpha1.FilesystemSnapshotAction{MaxBytes: resource.MustParse("1Gi")}
	l := &looker{order: capture.Order{Action: action}}
	us := self(t)
	other := us
	other.StartTicks--
	part := l.core(other, "web")
	var out bytes.Buffer
	_, err := part.Write(t.Context(), time.Minute, &out, io.Discard)
	if lost, ok := errors.AsType[capture.Lost](err); !ok || lost.Reason != volatile.GapEnded || out.Len() > 0 {
		t.Errorf("error %v, %d bytes", err, out.Len())
	}
	// What is stored of one does not stand for the other.
	if name := l.core(us, "web").Name; name == part.Name {
		t.Errorf("both are %s", name)
	} else if want := "web/memory-" + strconv.Itoa(us.PID) + "-" + strconv.FormatUint(us.StartTicks, 10) + ".core.zst"; name != want {
		t.Errorf("name %s, want %s", name, want)
	}
}

func TestStreamsEndWithTheTimeThatTheyAreGiven(t *testing.T) {
	action := &v1alpha1.FilesystemSnapshotAction{MaxBytes: resource.MustParse("1Gi")}
	l := &looker{order: capture.Order{Action: action}, target: volatile.Target{Processes: []volatile.Process{self(t)}}}
	for _, part := range l.processes() {
		summary, err := part.Write(context.Background(), time.Nanosecond, io.Discard, io.Discard)
		if err != nil || !summary.Truncated {
			t.Errorf("%s: %+v, error %v", part.Name, summary, err)
		}
	}
}

// TestMemoryOfWhatIsExpectedToDieIsCaptured and of a process outside of every container where all of the pod ends.
func TestMemoryOfWhatIsExpectedToDieIsCaptured(t *testing.T) {
	began, soon := metav1.Now(), int64(600)
	limited := corev1.PodSpec{ActiveDeadlineSeconds: &soon}
	tests := map[string]struct {
		dies bool
		live *corev1.Pod
		want int
	}{
		"neither":                  {false, &corev1.Pod{Status: corev1.PodStatus{StartTime: &began}}, 0},
		"a probe kills":            {true, &corev1.Pod{}, 1},
		"the pod has a deadline":   {false, &corev1.Pod{Spec: limited, Status: corev1.PodStatus{StartTime: &began}}, 2},
		"which is not counted":     {false, &corev1.Pod{Spec: limited}, 0},
		"the pod is not known":     {false, nil, 0},
		"a probe kills, not known": {true, nil, 1},
		"a probe and the deadline": {true, &corev1.Pod{Spec: limited, Status: corev1.PodStatus{StartTime: &began}}, 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := &looker{ends: ends(tt.live), order: capture.Order{
				Memory: v1alpha1.MemoryAuto, Action: &v1alpha1.FilesystemSnapshotAction{},
				Containers: []capture.Container{{ID: "c1", Name: "web", Dies: tt.dies}},
			}}
			l.target.Processes = []volatile.Process{{PID: 10, ContainerID: "c1"}, {PID: 11}}
			parts, gaps := l.memory(nil)
			left := int64(0)
			for _, gap := range gaps {
				left += gap.Count
			}
			if len(parts) != tt.want || left != int64(2-tt.want) {
				t.Errorf("%d parts, %d left, want %d parts", len(parts), left, tt.want)
			}
		})
	}
}
