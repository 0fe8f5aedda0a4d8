package policy

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ugallu.io/forensics/api/v1alpha1"
)

// answering is a client whose lists are answered by answer.
func answering(answer func(context.Context, client.ObjectList) error) client.Client {
	return interceptor.NewClient(nil, interceptor.Funcs{
		List: func(ctx context.Context, _ client.WithWatch, list client.ObjectList, _ ...client.ListOption) error {
			return answer(ctx, list)
		},
	})
}

// TestPauseKeepsNoOtherReaderOut: a reader that waits has its page between the tries of the one that it waits for.
func TestPauseKeepsNoOtherReaderOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []any
		var p *Policies
		read := func(reader string) {
			if _, _, err := p.page(context.WithValue(t.Context(), readerKey{}, reader), otherKinds()[0], subject{}, ""); err != nil {
				t.Errorf("%s: %v", reader, err)
			}
		}
		c := answering(func(ctx context.Context, _ client.ObjectList) error {
			order = append(order, ctx.Value(readerKey{}))
			if len(order) > 1 {
				return nil
			}
			go read("second")
			synctest.Wait()
			return errors.New("hiccup")
		})
		p = New(c, c, nil, clock.RealClock{})
		read("first")
		synctest.Wait()
		if want := []any{"first", "second", "first"}; !slices.Equal(order, want) {
			t.Errorf("the API server was asked by %v, want %v", order, want)
		}
	})
}

type readerKey struct{}

// coreOnly is an API server without Cilium and without the network policy API.
type coreOnly struct{}

func (coreOnly) ServerResourcesForGroupVersionWithContext(_ context.Context, groupVersion string) (*metav1.APIResourceList, error) {
	if groupVersion != coreKind().GroupVersion().String() {
		return nil, apierrors.NewNotFound(schema.GroupResource{}, groupVersion)
	}
	return &metav1.APIResourceList{APIResources: []metav1.APIResource{{Kind: coreKind().Kind}}}, nil
}

// TestSlowServerEndsTheReading: what was read in time is named, the kind that was not read to its end and those that were not
// asked for are omitted.
func TestSlowServerEndsTheReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each = tryWithin - 100*time.Millisecond
		c := answering(func(ctx context.Context, list client.ObjectList) error {
			page, ok := list.(*unstructured.UnstructuredList)
			if !ok {
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(each):
			}
			page.Items = []unstructured.Unstructured{{Object: map[string]any{"spec": map[string]any{"podSelector": map[string]any{}}}}}
			page.SetContinue("more")
			return nil
		})
		p := New(c, c, NewDetector(coreOnly{}), clock.RealClock{})
		read, err := p.others(t.Context(), v1alpha1.PodRef{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := int(lookFor / each); len(read.others) != want || int(read.omitted) != len(otherKinds()) {
			t.Errorf("%d named and %d omitted, want %d and every kind", len(read.others), read.omitted, want)
		}
	})
}
