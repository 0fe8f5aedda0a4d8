package repeat_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"ugallu.io/forensics/controller/internal/repeat"
)

func TestAnswersAreNotAskedForAgain(t *testing.T) {
	none := schema.GroupResource{}
	for name, tt := range map[string]struct {
		err  error
		want int
	}{
		"an answer":              {nil, 1},
		"no such object":         {apierrors.NewNotFound(none, "one"), 1},
		"not allowed":            {apierrors.NewForbidden(none, "one", errors.New("no")), 1},
		"a list that expired":    {apierrors.NewResourceExpired("too old"), 1},
		"no such kind":           {&meta.NoKindMatchError{}, 1},
		"an account not known":   {apierrors.NewUnauthorized("who"), repeat.Tries},
		"a server that is busy":  {apierrors.NewTooManyRequests("later", 0), repeat.Tries},
		"a server that is slow":  {apierrors.NewTimeoutError("later", 0), repeat.Tries},
		"a server that is ill":   {apierrors.NewInternalError(errors.New("ill")), repeat.Tries},
		"a connection that went": {errors.New("connection reset"), repeat.Tries},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked, began := 0, time.Now()
				err := repeat.While(t.Context(), func() bool { return true }, func() error { asked++; return tt.err })
				if asked != tt.want || !errors.Is(err, tt.err) {
					t.Errorf("asked %d times, want %d: %v", asked, tt.want, err)
				}
				if paused, want := time.Since(began), time.Duration(tt.want*(tt.want-1)/2)*100*time.Millisecond; paused != want {
					t.Errorf("%d tries took %s, want %s", asked, paused, want)
				}
			})
		})
	}
}

func TestTriesEndWithWhatTheyAreFor(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		err := repeat.While(ctx, func() bool { return true }, func() error {
			if asked++; asked == 1 {
				return first
			}
			cancel()
			return second
		})
		if asked != 2 || !errors.Is(err, first) || !errors.Is(err, second) {
			t.Errorf("asked %d times until the context ended: %v, want both errors", asked, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		err := repeat.While(t.Context(), func() bool { return asked < 2 }, func() error { asked++; return first })
		if asked != 2 || !errors.Is(err, first) {
			t.Errorf("asked %d times while there was time for two: %v", asked, err)
		}
	})
}
