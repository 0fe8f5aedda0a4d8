package incident

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ugallu.io/forensics/api/v1alpha1"
)

// releases are those of a node, one on each page, by the uids of the pods that they are to delete.
type releases struct {
	pods []string
	// expire are the answers, counted from 1, in place of which the list is too old.
	expire []int
	// asked are the pages that were asked for, by where they begin.
	asked []string
}

func (r *releases) list(_ context.Context, _ client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
	page, ok := list.(*v1alpha1.EventResponseList)
	if !ok {
		return nil
	}
	from := (&client.ListOptions{}).ApplyOptions(opts).Continue
	r.asked = append(r.asked, from)
	if slices.Contains(r.expire, len(r.asked)) {
		return apierrors.NewResourceExpired("too old")
	}
	at := max(0, slices.Index(r.pods, from))
	release := v1alpha1.EventResponse{}
	release.Spec.PodRef.UID = r.pods[at]
	release.Spec.Action.PodUnfreeze = &v1alpha1.PodUnfreezeAction{Disposition: v1alpha1.DispositionDelete}
	page.Items = []v1alpha1.EventResponse{release}
	if at+1 < len(r.pods) {
		page.Continue = r.pods[at+1]
	}
	return nil
}

func TestReleasesAreReadPageByPageUntilOneDeletesThePod(t *testing.T) {
	for name, tt := range map[string]struct {
		uid    string
		expire []int
		asked  []string
		doomed bool
		fails  bool
	}{
		"on a page between":            {uid: "b", asked: []string{"", "b"}, doomed: true},
		"on the last page":             {uid: "c", asked: []string{"", "b", "c"}, doomed: true},
		"on none":                      {uid: "d", asked: []string{"", "b", "c"}},
		"in a list that expires":       {uid: "c", expire: []int{3}, asked: []string{"", "b", "c", "", "b", "c"}, doomed: true},
		"in a list that expires twice": {uid: "c", expire: []int{2, 4}, asked: []string{"", "b", "", "b"}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			node := &releases{pods: []string{"a", "b", "c"}, expire: tt.expire}
			h := &hold{live: interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{List: node.list})}
			doomed, err := h.doomed(t.Context(), v1alpha1.PodRef{UID: tt.uid, NodeName: "worker"})
			if doomed != tt.doomed || (err != nil) != tt.fails {
				t.Errorf("doomed %t, %v", doomed, err)
			}
			if diff := cmp.Diff(tt.asked, node.asked); diff != "" {
				t.Error(diff)
			}
		})
	}
}
