//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// sealTime bounds the last seals after a release: each takes the log's poll of about one second.
const sealTime = time.Minute

// steps in the order they run.
var steps = []v1alpha1.Step{v1alpha1.StepFreeze, v1alpha1.StepSnapshot, v1alpha1.StepUpload, v1alpha1.StepUnfreeze}

// sealed waits until the object's bundle is sealed and returns it with its bytes from the store.
func (c *cluster) sealed(tb testing.TB, uid string) (v1alpha1.AttestationBundle, []byte) {
	tb.Helper()
	var bundle v1alpha1.AttestationBundle
	err := eventually(tb.Context(), sealTime, func(ctx context.Context) (bool, string, error) {
		err := client.IgnoreNotFound(c.Get(ctx, client.ObjectKey{Name: v1alpha1.BundleName(uid)}, &bundle))
		return bundle.Status.Phase == v1alpha1.BundleSealed, describe(bundle.Status.Conditions), err
	})
	if err != nil {
		tb.Fatalf("bundle %s of %s is not sealed: %v", v1alpha1.BundleName(uid), bundle.Spec.AttestedFor.Name, err)
	}
	if bundle.Spec.AttestedFor.UID != uid || bundle.Status.Object == nil || bundle.Status.LogIndex == nil || bundle.Status.Timestamp == nil {
		tb.Fatalf("sealed bundle %s lacks what it rests on: %+v", bundle.Name, bundle.Status)
	}
	return bundle, c.analyst(tb).fetch(tb, "ugallu-forensics", *bundle.Status.Object)
}

func TestCustodyEveryStepSealed(t *testing.T) {
	released := suite.released.get(t, releasedScene)
	trust := suite.stranger(t)
	responses := suite.responses(t, released)
	if len(responses) != len(steps) {
		t.Fatalf("the incident has %d responses, want %d", len(responses), len(steps))
	}
	previous, predicates := "", map[v1alpha1.Step]evidence.EventResponsePredicate{}
	for _, step := range steps {
		response := responses[step]
		bundle, raw := suite.sealed(t, string(response.UID))
		verified := trust.must(t, raw, evidence.PredicateTypeEventResponse)
		if digest := evidence.Digest(verified.payload); digest != bundle.Status.StatementDigest {
			t.Errorf("%s: the signed statement has digest %s, the bundle object says %s", step, digest, bundle.Status.StatementDigest)
		}
		var predicate evidence.EventResponsePredicate
		if err := json.Unmarshal(verified.Predicate, &predicate); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		if predicate.Previous != previous {
			t.Errorf("%s names %q as the statement before it, want %q", step, predicate.Previous, previous)
		}
		if predicate.Response.UID != string(response.UID) || predicate.Step != string(step) || predicate.IncidentUID != response.Spec.IncidentUID {
			t.Errorf("%s: the statement is about %+v, step %s of incident %s", step, predicate.Response, predicate.Step, predicate.IncidentUID)
		}
		demandSpec(t, predicate.Spec, response.Spec)
		previous, predicates[step] = bundle.Status.StatementDigest, predicate
	}
	checkObserved(t, responses[v1alpha1.StepSnapshot], predicates[v1alpha1.StepSnapshot])
	checkAcknowledged(t, responses[v1alpha1.StepUnfreeze])
}

// demandSpec compares what was signed with what the cluster holds.
func demandSpec(t *testing.T, signed json.RawMessage, spec any) {
	t.Helper()
	held, err := evidence.Canonical(spec)
	if err != nil {
		t.Fatal(err)
	}
	claimed, err := evidence.Canonical(signed)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(held), string(claimed)); diff != "" {
		t.Errorf("the signed spec differs from the object's (-object +signed):\n%s", diff)
	}
}

// checkObserved demands that what the read-back workload hashed is what the node's agent asserted.
func checkObserved(t *testing.T, snapshot v1alpha1.EventResponse, predicate evidence.EventResponsePredicate) {
	t.Helper()
	if len(predicate.Artifacts) == 0 || len(predicate.Artifacts) != len(snapshot.Status.Artifacts) {
		t.Fatalf("%d artifacts are signed, the response has %d", len(predicate.Artifacts), len(snapshot.Status.Artifacts))
	}
	asserted := map[string]string{}
	for _, artifact := range snapshot.Status.Artifacts {
		asserted[artifact.Name] = artifact.SHA256
	}
	for _, artifact := range predicate.Artifacts {
		if artifact.Observed == nil || artifact.Observed.By == artifact.Asserted.By {
			t.Errorf("%s: observed %+v, asserted %+v", artifact.Name, artifact.Observed, artifact.Asserted)
		}
		if artifact.Asserted.SHA256 != asserted[artifact.Name] || artifact.Asserted.Node != snapshot.Spec.NodeName {
			t.Errorf("%s: asserted %+v, the response says %q", artifact.Name, artifact.Asserted, asserted[artifact.Name])
		}
		for _, segment := range artifact.Segments {
			if segment.SHA256 == "" || segment.ObservedSHA256 != segment.SHA256 {
				t.Errorf("%s: asserted %s, observed %s", segment.Key, segment.SHA256, segment.ObservedSHA256)
			}
		}
	}
}

// checkAcknowledged demands that the signed release order says who let the pod go.
func checkAcknowledged(t *testing.T, unfreeze v1alpha1.EventResponse) {
	t.Helper()
	order := unfreeze.Spec.Action.PodUnfreeze
	want := "system:serviceaccount:ugallu-system:" + responder
	if order.Reason != v1alpha1.ReleaseAcknowledged || len(order.Acknowledgements) != 1 || order.Acknowledgements[0].Username != want {
		t.Errorf("podunfreeze was ordered for %s on %+v, want %s", order.Reason, order.Acknowledgements, want)
	}
}

func TestCustodyEventsSealed(t *testing.T) {
	released := suite.released.get(t, releasedScene)
	trust := suite.stranger(t)
	var incident v1alpha1.Incident
	suite.look(t, client.ObjectKey{Name: released.incident}, &incident)
	for _, name := range []string{released.event.Name, incident.Status.CompletionEvent.Name} {
		var event v1alpha1.SecurityEvent
		suite.look(t, client.ObjectKey{Name: name}, &event)
		_, raw := suite.sealed(t, string(event.UID))
		verified := trust.must(t, raw, evidence.PredicateTypeSecurityEvent)
		var predicate evidence.SecurityEventPredicate
		if err := json.Unmarshal(verified.Predicate, &predicate); err != nil {
			t.Fatal(err)
		}
		if predicate.Event.UID != string(event.UID) {
			t.Errorf("the statement is about %+v, want event %s", predicate.Event, event.UID)
		}
		demandSpec(t, predicate.Spec, event.Spec)
		canonical, err := evidence.Canonical(event.Spec)
		if err != nil {
			t.Fatal(err)
		}
		if len(verified.Subject) == 0 || verified.Subject[0].Digest["sha256"] != evidence.Digest(canonical) {
			t.Errorf("the statement's subject is %+v, want sha256 %s", verified.Subject, evidence.Digest(canonical))
		}
	}
}

func TestCustodyManifestNamesEverything(t *testing.T) {
	released := suite.released.get(t, releasedScene)
	var incident v1alpha1.Incident
	suite.look(t, client.ObjectKey{Name: released.incident}, &incident)
	stored := *incident.Status.Manifest
	raw := suite.analyst(t).fetch(t, incident.Spec.Snapshot.Destination.Bucket, stored)
	if want := evidence.ManifestKey(v1alpha1.EvidencePrefix(incident.Name), evidence.Digest(raw)); stored.Key != want {
		t.Errorf("the manifest lies at %s, want %s", stored.Key, want)
	}
	canonical, err := evidence.Canonical(json.RawMessage(raw))
	if err != nil || !bytes.Equal(canonical, raw) {
		t.Errorf("the manifest is not canonical JSON (%v)", err)
	}
	var manifest evidence.Manifest
	if err := json.Unmarshal(raw, &manifest); err != nil {
		t.Fatal(err)
	}
	responses := suite.responses(t, released)
	if manifest.Incident.UID != string(incident.UID) || manifest.Trigger.UID != string(released.event.UID) || manifest.Pod.UID != string(released.victim.UID) {
		t.Errorf("the manifest is about incident %+v, trigger %+v, pod %+v", manifest.Incident, manifest.Trigger, manifest.Pod)
	}
	if len(manifest.Responses) < 2 || manifest.Responses[0].UID != string(responses[v1alpha1.StepFreeze].UID) {
		t.Errorf("the manifest names the responses %+v", manifest.Responses)
	}
	snapshot := responses[v1alpha1.StepSnapshot]
	captured := slices.DeleteFunc(slices.Clone(manifest.Artifacts), func(a evidence.Artifact) bool {
		return a.Kind == string(v1alpha1.ArtifactClusterState)
	})
	if len(captured) != len(manifest.Artifacts)-1 || len(manifest.Containment) == 0 || manifest.Truncated {
		t.Errorf("the manifest has %d artifacts, %d of them from the node, %d bytes of containment, truncated %t",
			len(manifest.Artifacts), len(captured), len(manifest.Containment), manifest.Truncated)
	}
	checkObserved(t, snapshot, evidence.EventResponsePredicate{Artifacts: captured})
}

// TestCustodyAgentCanOnlyPut tries what a stolen credential of a node agent would be used for.
func TestCustodyAgentCanOnlyPut(t *testing.T) {
	released := suite.released.get(t, releasedScene)
	snapshot := suite.responses(t, released)[v1alpha1.StepSnapshot]
	bucket, segment := snapshot.Spec.Action.FilesystemSnapshot.Destination.Bucket, snapshot.Status.Artifacts[0].Segments[0]
	suite.analyst(t)
	agent, err := suite.storeClient(t.Context(), v1alpha1.NamespacePrivileged, "ugallu-forensics-nodeagent-worm")
	if err != nil {
		t.Fatal(err)
	}
	attempts := map[string]func(context.Context) error{
		"get": func(ctx context.Context) error {
			object, err := agent.GetObject(ctx, bucket, segment.Key, minio.GetObjectOptions{})
			if err != nil {
				return err
			}
			_, err = io.ReadAll(object)
			return err
		},
		"delete a version": func(ctx context.Context) error {
			return agent.RemoveObject(ctx, bucket, segment.Key, minio.RemoveObjectOptions{VersionID: segment.VersionID, GovernanceBypass: true})
		},
		"delete the key": func(ctx context.Context) error {
			return agent.RemoveObject(ctx, bucket, segment.Key, minio.RemoveObjectOptions{})
		},
		"list": func(ctx context.Context) error {
			var errs []error
			for object := range agent.ListObjects(ctx, bucket, minio.ListObjectsOptions{Recursive: true, MaxKeys: 1}) {
				errs = append(errs, object.Err)
			}
			if len(errs) == 0 {
				return nil
			}
			return errs[0]
		},
		"put outside the artifacts": func(ctx context.Context) error {
			_, err := agent.PutObject(ctx, bucket, v1alpha1.EvidencePrefix(released.incident)+"/manifest-forged.json",
				bytes.NewReader([]byte("{}")), 2, minio.PutObjectOptions{})
			return err
		},
	}
	for name, attempt := range attempts {
		t.Run(name, func(t *testing.T) {
			if code := minio.ToErrorResponse(attempt(t.Context())).Code; code != "AccessDenied" {
				t.Errorf("the store answered %q, want AccessDenied", code)
			}
		})
	}
	suite.analyst(t).fetch(t, bucket, segment)
}
