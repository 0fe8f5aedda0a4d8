//go:build integration

package integration

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

const (
	// idlePods are contained while the agent has nothing else to do.
	idlePods = 50
	// idleTime is how long it is looked at: several rounds of its regular looks.
	idleTime = 60 * time.Second
	// ticksPerSecond of /proc/PID/stat: USER_HZ, which is 100 on every architecture that we build for.
	ticksPerSecond = 100
)

// BenchmarkAgentIdle50 measures what the agent of one node takes while 50 pods there are contained and nothing happens.
func BenchmarkAgentIdle50(b *testing.B) {
	var once sync.Once
	for b.Loop() {
		once.Do(func() { benchmarkIdle(b) })
	}
}

func benchmarkIdle(b *testing.B) {
	b.Helper()
	scenes := make([]*scene, 0, idlePods)
	for range idlePods {
		s := suite.stage(b, idle("only"))
		scenes = append(scenes, s)
		suite.detect(b, s)
	}
	node := scenes[0].victim.Spec.NodeName
	for _, s := range scenes {
		suite.await(b, s, v1alpha1.ConditionAttested, 10*time.Minute)
		if s.victim.Spec.NodeName != node {
			b.Fatalf("pods run on %s and %s, all have to be on one node", node, s.victim.Spec.NodeName)
		}
	}
	_, process := suite.agent(b, node)
	before := usedTicks(b, node, process)
	time.Sleep(idleTime)
	used := usedTicks(b, node, process) - before
	b.ReportMetric(float64(used)/ticksPerSecond/idleTime.Seconds()*100, "cpu-percent")
	b.ReportMetric(residentMiB(b, node, process), "rss-MiB")
	for _, s := range scenes {
		var incident v1alpha1.Incident
		suite.look(b, client.ObjectKey{Name: s.incident}, &incident)
		if !isTrue(incident.Status.Conditions, v1alpha1.ConditionContained) {
			b.Errorf("a pod is not contained any more\n%s", describe(incident.Status.Conditions))
		}
		if err := suite.strike(b.Context(), s); err != nil {
			b.Fatal(err)
		}
	}
}

func usedTicks(b *testing.B, node, process string) int {
	b.Helper()
	stat, err := onNode(b.Context(), node, "cat", "/proc/"+process+"/stat")
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	user, userErr := strconv.Atoi(fields[11])
	system, systemErr := strconv.Atoi(fields[12])
	if userErr != nil || systemErr != nil {
		b.Fatalf("stat %q", stat)
	}
	return user + system
}

func residentMiB(b *testing.B, node, process string) float64 {
	b.Helper()
	status, err := onNode(b.Context(), node, "cat", "/proc/"+process+"/status")
	if err != nil {
		b.Fatal(err)
	}
	var kib int
	for line := range strings.Lines(status) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return float64(kib) / 1024
		}
	}
	b.Fatalf("no VmRSS in %q", status)
	return 0
}
