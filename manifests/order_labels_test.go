package manifests_test

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// orderLabels are those that the controller puts on an order, and one of somebody else.
func orderLabels() map[string]string {
	return map[string]string{
		v1alpha1.LabelIncidentUID: "i", v1alpha1.LabelParentResponse: "er-before", v1alpha1.LabelPodUID: "p",
		v1alpha1.LabelStep: string(v1alpha1.StepUnfreeze), "team": "red",
	}
}

// keepsOrderLabels tries to have an order counted for another, or not found, as the cluster's administrator, and as the
// controller and the agent with a right that no role of ours gives them.
func keepsOrderLabels(t *testing.T, s server) {
	s.allow(t, "patch", "eventresponses")
	controller := s.as(t, forensics, nil)
	awaitAnswer(t, func() error {
		return controller.Patch(t.Context(), s.order(t, nil), client.RawPatch(types.MergePatchType, []byte("{}")))
	}, "")
	by := map[string]client.Client{"the administrator": s.client, "the controller": controller, "the agent": s.as(t, agent, nil)}
	for label := range orderLabels() {
		says := label + " of response x-"
		if label == "team" {
			says = ""
		}
		for account, as := range by {
			t.Run(label+" by "+account, func(t *testing.T) {
				without := orderLabels()
				delete(without, label)
				try := func(labels map[string]string, value any) {
					t.Helper()
					patch := fields{"labels": fields{label: value}}
					allowedOrSays(t, patchMetadata(t, as, s.order(t, labels), patch), says)
				}
				try(orderLabels(), "other")
				try(orderLabels(), "")
				try(orderLabels(), nil)
				try(without, "added")
				try(without, "")
				try(nil, "added")
			})
		}
	}
	t.Run("every label", func(t *testing.T) {
		const says = "metadata.labels: ugallu.io/incident-uid and ugallu.io/parent-er and ugallu.io/pod-uid and ugallu.io/step of response "
		err := patchMetadata(t, s.client, s.order(t, orderLabels()), fields{"labels": nil})
		allowedOrSays(t, err, says)
		allowedOrSays(t, err, "mark it with a label of another name or an annotation")
	})
	t.Run("by a whole update", func(t *testing.T) { keepsOrderLabelsOnUpdate(t, s) })
	t.Run("other metadata", func(t *testing.T) {
		order := s.order(t, orderLabels())
		free := fields{"labels": fields{"seen": "yes", "ugallu.io/ticket": "7", "team": nil}, "annotations": fields{"ugallu.io/step": "note"}}
		allowedOrSays(t, patchMetadata(t, s.client, order, free), "")
		free = fields{"finalizers": []any{"example.com/copied"}}
		allowedOrSays(t, patchMetadata(t, s.client, order, free), "")
	})
	t.Run("by the status", func(t *testing.T) { recordsBesideLabels(t, s) })
}

// keepsOrderLabelsOnUpdate sends the order as it was read, with and without its labels.
func keepsOrderLabelsOnUpdate(t *testing.T, s server) {
	order := s.order(t, orderLabels())
	order.SetAnnotations(map[string]string{"note": "seen"})
	allowedOrSays(t, s.client.Update(t.Context(), order), "")
	order.SetLabels(map[string]string{"team": "red"})
	allowedOrSays(t, s.client.Update(t.Context(), order), v1alpha1.LabelStep+" of response ")
}

// recordsBesideLabels shows that the status is written as before, and that no label can be sent along with it.
func recordsBesideLabels(t *testing.T, s server) {
	ofNode := s.as(t, agent, map[string][]string{"authentication.kubernetes.io/node-name": {"worker"}})
	for account, as := range map[string]client.Client{"the agent": ofNode, "the controller": s.as(t, forensics, nil)} {
		t.Run(account, func(t *testing.T) {
			order := s.order(t, orderLabels())
			patch := []byte(`{"metadata":{"labels":{"ugallu.io/step":"other","ugallu.io/pod-uid":null}},"status":{"phase":"Running"}}`)
			if err := as.Status().Patch(t.Context(), order, client.RawPatch(types.MergePatchType, patch)); err != nil {
				t.Fatal(err)
			}
			if err := s.client.Get(t.Context(), client.ObjectKeyFromObject(order), order); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(orderLabels(), order.GetLabels()); diff != "" {
				t.Error(diff)
			}
			if phase, _, _ := unstructured.NestedString(order.Object, "status", "phase"); phase != "Running" {
				t.Errorf("phase %q", phase)
			}
		})
	}
}

func (s server) order(t *testing.T, labels map[string]string) *unstructured.Unstructured {
	t.Helper()
	return s.labelled(t, "EventResponse", responseSpec("PodFreeze", "podFreeze"), maps.Clone(labels))
}
