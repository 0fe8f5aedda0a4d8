package policy

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
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
