//go:build integration

package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"ugallu.io/forensics/api/v1alpha1"
)

// secret stands in a process's memory and nowhere else: its halves are in the command line, the whole is what it made of them.
type secret [2]string

func newSecret(tb testing.TB) secret {
	tb.Helper()
	var random [32]byte
	if _, err := rand.Read(random[:]); err != nil {
		tb.Fatal(err)
	}
	text := hex.EncodeToString(random[:])
	return secret{text[:32], text[32:]}
}

// keep has a process of the container hold the secret.
func (s secret) keep(t *testing.T, on *scene, container string) {
	t.Helper()
	line := fmt.Sprintf(`b=%s; a=%s; c="$a$b"; while :; do sleep 1; done`, s[1], s[0])
	suite.exec(t, on, victimName, container, "sh", "-c", fmt.Sprintf("sh -c '%s' >/dev/null 2>&1 </dev/null &", line))
}

// probed is a container that the kubelet kills some time after it was frozen.
func probed(name string) corev1.Container {
	container := web(name)
	container.LivenessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(80)}},
		PeriodSeconds: 10, TimeoutSeconds: 5, FailureThreshold: 12,
	}
	return container
}

// TestCaptureHoldsTheMemoryOfProcesses: Always stores what every process holds, Auto what the probes will have killed, and
// what is not stored is a gap.
func TestCaptureHoldsTheMemoryOfProcesses(t *testing.T) {
	for memory, stored := range map[v1alpha1.MemoryCapture][]string{
		v1alpha1.MemoryAlways: {"calm", "doomed"}, v1alpha1.MemoryAuto: {"doomed"}, v1alpha1.MemoryNone: nil,
	} {
		t.Run(string(memory), func(t *testing.T) {
			remembering(t, memory)
			s := suite.stage(t, idle("calm"), probed("doomed"))
			suite.strikeAfter(t, s)
			secrets := map[string]secret{"calm": newSecret(t), "doomed": newSecret(t)}
			for container, secret := range secrets {
				secret.keep(t, s, container)
			}
			suite.detect(t, s)
			suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
			snapshot := suite.responses(t, s)[v1alpha1.StepSnapshot]
			if snapshot.Status.Phase != v1alpha1.ResponseSucceeded {
				t.Errorf("filesystem-snapshot is %q with gaps %+v", snapshot.Status.Phase, snapshot.Status.Gaps)
			}
			demandMemory(t, snapshot, secrets, stored)
			if err := suite.release(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// demandMemory demands that the cores hold the secrets of the containers that were to be stored, and of no other one.
func demandMemory(t *testing.T, snapshot v1alpha1.EventResponse, secrets map[string]secret, stored []string) {
	t.Helper()
	found := map[string]bool{}
	for _, artifact := range ofKind(snapshot, v1alpha1.ArtifactProcessMemory) {
		core := unzstd(t, download(t, snapshot.Spec.Action.FilesystemSnapshot.Destination.Bucket, artifact))
		if !bytes.HasPrefix(core, []byte("\x7fELF")) {
			t.Errorf("%s is no core file", artifact.Name)
		}
		for container, secret := range secrets {
			found[container] = found[container] || bytes.Contains(core, []byte(secret[0]+secret[1]))
		}
	}
	for container := range secrets {
		if wanted := slices.Contains(stored, container); found[container] != wanted {
			t.Errorf("the memory of %s is stored: %t, want %t; gaps %+v", container, found[container], wanted, snapshot.Status.Gaps)
		}
	}
	named := slices.ContainsFunc(snapshot.Status.Gaps, func(gap v1alpha1.GapCount) bool { return gap.Reason == "MemoryNotCaptured" })
	if missing := len(stored) < len(secrets); named != missing {
		t.Errorf("memory is named as a gap: %t, want %t: %+v", named, missing, snapshot.Status.Gaps)
	}
}

// remembering sets which memory incidents capture until the test ends.
func remembering(t *testing.T, memory v1alpha1.MemoryCapture) {
	t.Helper()
	set := func(ctx context.Context, value string) error {
		_, err := suite.run(ctx, "patch", "forensicsconfig", "default", "--type=merge", "-p", `{"spec":{"freeze":{"memory":`+value+`}}}`)
		return err
	}
	if err := set(t.Context(), fmt.Sprintf("%q", memory)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set(context.WithoutCancel(t.Context()), "null"); err != nil {
			t.Error(err)
		}
	})
}
