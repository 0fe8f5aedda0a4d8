package incident_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

func acknowledgementKey() []byte { return bytes.Repeat([]byte{7}, 32) }

// faultyStore is the store as a controller reaches it that may be killed while it puts.
type faultyStore struct {
	*worm.Memory
	faults *faults
	// refuse is what keeps a key from being stored, nil for nothing.
	refuse func(key string) error
}

func (s faultyStore) Put(ctx context.Context, key string, body io.Reader, lock worm.Lock) (worm.Object, error) {
	var object worm.Object
	if s.refuse != nil {
		if err := s.refuse(key); err != nil {
			return object, err
		}
	}
	err := s.faults.write("put "+key, func() error {
		var err error
		object, err = s.Memory.Put(ctx, key, body, lock)
		return err
	})
	return object, err
}

func end(response *v1alpha1.EventResponse, phase v1alpha1.ResponsePhase, reason string) {
	now := metav1.NowMicro()
	status := metav1.ConditionFalse
	if phase == v1alpha1.ResponseSucceeded {
		status = metav1.ConditionTrue
	}
	response.Status.Phase, response.Status.CompletedAt = phase, &now
	meta.SetStatusCondition(&response.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionComplete, Status: status, Reason: reason, Message: "as the test plays it",
	})
}

// succeed is a node agent to which nothing ever happens.
func succeed(response *v1alpha1.EventResponse) {
	agent, err := reporter()
	if err != nil {
		panic(err)
	}
	agent.Account, agent.NodeName = "system:serviceaccount:ugallu-system-privileged:ugallu-forensics-nodeagent", "worker"
	response.Status.Reporter = &agent
	switch response.Spec.Action.Type {
	case v1alpha1.ActionPodFreeze:
		now := metav1.NowMicro()
		response.Status.Containment = &v1alpha1.Containment{
			Level: v1alpha1.LevelFull, ContainedAt: &now, FreezeMethod: v1alpha1.FreezeCgroupV2,
			Containers: []v1alpha1.ContainerFreeze{{ContainerID: "container-1", Name: "web"}, {ContainerID: "container-2", Name: "side"}},
		}
	case v1alpha1.ActionFilesystemSnapshot:
		response.Status.Artifacts = []v1alpha1.Artifact{artifact(response)}
		response.Status.Gaps = []v1alpha1.GapCount{{Reason: "Unreadable", Message: "/proc/kcore", Count: 1}}
	}
	end(response, v1alpha1.ResponseSucceeded, v1alpha1.ReasonSucceeded)
}

func artifact(response *v1alpha1.EventResponse) v1alpha1.Artifact {
	destination := response.Spec.Action.FilesystemSnapshot.Destination
	digest := evidence.Digest([]byte("archive"))
	return v1alpha1.Artifact{
		Name: "web/rootfs.tar.zst", Kind: v1alpha1.ArtifactRootFilesystem, Container: "web", MediaType: evidence.MediaTypeTarZstd,
		Size: 7, SHA256: digest, Entries: 3, FrozenThroughout: true,
		Segments: []v1alpha1.StoredObject{{
			Key: destination.Prefix + "/artifacts/web/rootfs.tar.zst/0", VersionID: "v1", SHA256: digest, Size: 7, RetainUntil: destination.RetainUntil,
		}},
	}
}

// silent is a node agent that is gone.
func silent(*v1alpha1.EventResponse) {}

// failing is a node agent that refuses orders of one type.
func failing(action v1alpha1.ActionType) func(response *v1alpha1.EventResponse) {
	return func(response *v1alpha1.EventResponse) {
		if response.Spec.Action.Type != action {
			succeed(response)
			return
		}
		end(response, v1alpha1.ResponseFailed, v1alpha1.ReasonOrderRefused)
	}
}

func manifests(store *worm.Memory) []worm.Object { return stored(store, "/manifest-") }

func stored(store *worm.Memory, part string) []worm.Object {
	var found []worm.Object
	for _, object := range store.Objects() {
		if strings.Contains(object.Key, part) {
			found = append(found, object)
		}
	}
	return found
}

func (w *world) advance(d time.Duration) { w.clock.SetTime(w.clock.Now().Add(d)) }
