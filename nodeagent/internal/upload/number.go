package upload

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"ugallu.io/forensics/internal/worm"
)

// maxNumbers that an artifact may use up: 128 segments, and a try that failed every few minutes for two days.
const maxNumbers = 1024

// ErrUsedUp means that no number is left for another try at an artifact.
var ErrUsedUp = errors.New("every number of the artifact is taken")

// numbers hands out the numbers of one folder.
type numbers struct {
	store  worm.Putter
	folder string
	lock   worm.Lock
	claims *Claims
	bucket string
	// next is above every number that is known to be taken.
	next int
	kept map[int]bool
}

// keep takes the number of a recorded segment for taken. A key of another folder has none.
func (n *numbers) keep(key string) {
	rest, ok := strings.CutPrefix(key, n.folder+"/")
	if !ok {
		return
	}
	if number, err := strconv.Atoi(rest); err == nil && number >= 0 {
		n.kept[number] = true
		n.next = max(n.next, number+1)
	}
}

// claim takes the next free number for the segment with this index and returns the key that goes with it.
func (n *numbers) claim(ctx context.Context, index int) (string, error) {
	if number, ok := n.claims.take(place{n.bucket, n.folder}, index, n.next); ok {
		// It was claimed when every number below it was found to be taken.
		n.next = number + 1
		return n.key(number), nil
	}
	for ; n.next < maxNumbers; n.next++ {
		key := n.key(n.next)
		_, err := n.store.Put(ctx, key+".claim", strings.NewReader(fmt.Sprintf("{\"segment\":%d}\n", index)), n.lock)
		if errors.Is(err, worm.ErrExists) {
			continue
		}
		if err != nil {
			return "", StoreError{"claim " + key, err}
		}
		n.next++
		return key, nil
	}
	return "", fmt.Errorf("claim a number in %s: %w", n.folder, ErrUsedUp)
}

// free gives the number back that was claimed last: nothing is stored under it.
func (n *numbers) free(index int) {
	n.claims.give(place{n.bucket, n.folder}, claimed{n.next - 1, index})
}

// look finds the numbers that other tries took, by claiming the one after them.
func (n *numbers) look(ctx context.Context, index int) error {
	if _, err := n.claim(ctx, index); err != nil {
		return err
	}
	n.free(index)
	n.next--
	return nil
}

// taken are the keys that were claimed.
func (n *numbers) taken() []string {
	keys := make([]string, n.next)
	for number := range keys {
		keys[number] = n.key(number)
	}
	return keys
}

// abandoned are the keys that were claimed and are no segment's.
func (n *numbers) abandoned() []string {
	var keys []string
	for number := range n.next {
		if !n.kept[number] {
			keys = append(keys, n.key(number))
		}
	}
	return keys
}

func (n *numbers) key(number int) string { return n.folder + "/" + strconv.Itoa(number) }
