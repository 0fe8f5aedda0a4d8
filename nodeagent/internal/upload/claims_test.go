package upload_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/upload"
)

// grudging is a store that takes claims, and refuses everything else while it has a reason: at the begin of what it is sent, or
// when it has all of it; then it may have stored it all the same.
type grudging struct {
	*worm.Memory
	why          error
	atEnd, lying bool
}

func (g *grudging) Put(ctx context.Context, key string, body io.Reader, lock worm.Lock) (worm.Object, error) {
	switch {
	case g.why == nil || strings.HasSuffix(key, ".claim"):
		return g.Memory.Put(ctx, key, body, lock)
	case g.lying:
		if _, err := g.Memory.Put(ctx, key, body, lock); err != nil {
			return worm.Object{}, err
		}
	case g.atEnd:
		_, _ = io.Copy(io.Discard, body)
	}
	return worm.Object{}, g.why
}

// try stores data by one try.
func (g *grudging) try(t *testing.T, o upload.Options, data []byte) (upload.Result, error) {
	w := upload.NewWriter(t.Context(), g, o)
	if err := frames(w, data, frame); err != nil {
		w.Abort(err)
		return upload.Result{}, err
	}
	return w.Finish()
}

// keys without those of claims, and how many claims there are.
func keys(memory *worm.Memory) (stored []string, claims int) {
	for _, object := range memory.Objects() {
		if strings.HasSuffix(object.Key, ".claim") {
			claims++
		} else {
			stored = append(stored, object.Key)
		}
	}
	return stored, claims
}

func TestAStoreThatRefusesUsesUpNoNumbers(t *testing.T) {
	for _, why := range []error{worm.ErrFull, worm.ErrDenied, worm.ErrNoBucket} {
		for name, atEnd := range map[string]bool{"at the begin": false, "at the end": true} {
			t.Run(why.Error()+" "+name, func(t *testing.T) {
				g, o, data := &grudging{Memory: worm.NewMemory()}, options(first), random(455)
				o.Claims = new(upload.Claims)
				recorded := store(t, g, o, data[:2*first], frame)
				g.why, g.atEnd, o.Resume = why, atEnd, recorded.Segments
				for range 2000 {
					if _, err := g.try(t, o, data); !errors.Is(err, why) {
						t.Fatalf("error %v", err)
					}
				}
				g.why = nil
				result, err := g.try(t, o, data)
				must(t, err)
				if !bytes.Equal(fetch(t, g.Memory, result.Segments), data) {
					t.Error("segments do not add up to the stream")
				}
				if stored, claims := keys(g.Memory); len(stored) != 5 || claims != 5 || len(result.Abandoned) != 0 {
					t.Errorf("stored %v with %d claims, abandoned %v", stored, claims, result.Abandoned)
				}
			})
		}
	}
}

// TestARefusalThatWasNoneReplacesNothing has the store say that it is full of what it took in a request before.
func TestARefusalThatWasNoneReplacesNothing(t *testing.T) {
	g, o, data := &grudging{Memory: worm.NewMemory(), why: worm.ErrFull, lying: true}, options(0), random(50)
	o.Claims = new(upload.Claims)
	if _, err := g.try(t, o, data); !errors.Is(err, worm.ErrFull) {
		t.Fatalf("error %v", err)
	}
	g.why = nil
	if _, err := g.try(t, o, data); !errors.Is(err, worm.ErrExists) {
		t.Fatalf("error %v, want ErrExists", err)
	}
	result, err := g.try(t, o, data)
	must(t, err)
	if diff := cmp.Diff([]string{o.Folder + "/0"}, result.Abandoned); diff != "" || result.Segments[0].Key != o.Folder+"/1" {
		t.Errorf("at %s, abandoned (-want +got):\n%s", result.Segments[0].Key, diff)
	}
}

func TestANumberWhoseAnswerWasLostIsNotUsedAgain(t *testing.T) {
	g, o, data := &grudging{Memory: worm.NewMemory(), why: worm.ErrUnavailable, atEnd: true}, options(0), random(50)
	o.Claims = new(upload.Claims)
	if _, err := g.try(t, o, data); !errors.Is(err, worm.ErrUnavailable) {
		t.Fatalf("error %v", err)
	}
	g.why = nil
	result, err := g.try(t, o, data)
	must(t, err)
	if diff := cmp.Diff([]string{o.Folder + "/0"}, result.Abandoned); diff != "" {
		t.Errorf("abandoned (-want +got):\n%s", diff)
	}
}

// TestANumberIsUsedAgainForItsOwnSegmentAlone begins anew a stream of which the third segment was refused.
func TestANumberIsUsedAgainForItsOwnSegmentAlone(t *testing.T) {
	g, o, data := &grudging{Memory: worm.NewMemory()}, options(first), random(3*first)
	o.Claims = new(upload.Claims)
	o.Resume = store(t, g, o, data[:2*first], frame).Segments
	g.why = worm.ErrFull
	if _, err := g.try(t, o, data); !errors.Is(err, worm.ErrFull) {
		t.Fatalf("error %v", err)
	}
	g.why, o.Resume = nil, nil
	result, err := g.try(t, o, data)
	must(t, err)
	var got []string
	for i := range result.Segments {
		got = append(got, strings.TrimPrefix(result.Segments[i].Key, o.Folder+"/"))
	}
	if diff := cmp.Diff([]string{"3", "4", "5"}, got); diff != "" {
		t.Errorf("numbers (-want +got):\n%s", diff)
	}
	complete(t, g.Memory, result)
}

func TestForgottenNumbersAreClaimedAnew(t *testing.T) {
	g, o := &grudging{Memory: worm.NewMemory(), why: worm.ErrFull}, options(0)
	o.Claims = new(upload.Claims)
	o.Bucket = "evidence"
	for _, forget := range [][2]string{
		{"evidence", "forensics/another/"}, {"another", "forensics/0123456789abcdef/"}, {"evidence", "forensics/0123456789abcdef/"},
	} {
		if _, err := g.try(t, o, random(50)); !errors.Is(err, worm.ErrFull) {
			t.Fatalf("error %v", err)
		}
		if _, got := keys(g.Memory); got != 1 {
			t.Errorf("%d claims before forgetting %v", got, forget)
		}
		o.Claims.Forget(forget[0], forget[1])
	}
	if _, err := g.try(t, o, random(50)); !errors.Is(err, worm.ErrFull) {
		t.Fatalf("error %v", err)
	}
	if _, got := keys(g.Memory); got != 2 {
		t.Errorf("%d claims after forgetting", got)
	}
}

// TestANumberOfOneBucketIsNotTakenInAnother has the first number of the folder taken in the other bucket.
func TestANumberOfOneBucketIsNotTakenInAnother(t *testing.T) {
	one, other := &grudging{Memory: worm.NewMemory(), why: worm.ErrFull}, &grudging{Memory: worm.NewMemory()}
	o := options(0)
	o.Claims, o.Bucket = new(upload.Claims), "one"
	if _, err := one.try(t, o, random(50)); !errors.Is(err, worm.ErrFull) {
		t.Fatalf("error %v", err)
	}
	o.Bucket = "other"
	_, err := other.try(t, o, random(50))
	must(t, err)
	if _, claims := keys(other.Memory); claims != 1 {
		t.Errorf("%d claims in the other bucket", claims)
	}
}
