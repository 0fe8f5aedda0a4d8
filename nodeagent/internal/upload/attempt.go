package upload

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"ugallu.io/forensics/internal/worm"
)

// maxAttempts at one artifact. An agent that died this often will not do better the next time.
const maxAttempts = 100

// Target is where an artifact goes.
type Target struct {
	// Prefix of the incident: forensics/<incident>.
	Prefix string
	// Name of the artifact, such as web/rootfs.tar.zst.
	Name string
	Lock worm.Lock
}

// Attempt is the right to write one artifact into one folder.
//
// An agent can put and do nothing else: it cannot list, read or delete. So it takes a folder by putting a small object
// "claim" into it, which the store grants once. The folder of the first attempt is <prefix>/artifacts/<name>, and
// a<n> below it for later ones. A claim that exists was made by an attempt that did not live to report its artifact;
// what it stored stays locked and is never continued or replaced.
type Attempt struct {
	// Number from 1.
	Number int
	// Folder without trailing slash.
	Folder string
	// Abandoned are the folders of the attempts before, which may hold locked segments that no report names.
	Abandoned []string
}

// Claim takes the first folder of the target that no attempt took before.
func Claim(ctx context.Context, store worm.Putter, target Target) (Attempt, error) {
	attempt := Attempt{}
	for number := 1; number <= maxAttempts; number++ {
		attempt.Number, attempt.Folder = number, folder(target, number)
		body := fmt.Sprintf("{\"artifact\":%q,\"attempt\":%d}\n", target.Name, number)
		_, err := store.Put(ctx, attempt.Folder+"/claim", strings.NewReader(body), target.Lock)
		if err == nil {
			return attempt, nil
		}
		if !errors.Is(err, worm.ErrExists) {
			return Attempt{}, fmt.Errorf("claim %s: %w", attempt.Folder, err)
		}
		attempt.Abandoned = append(attempt.Abandoned, attempt.Folder)
	}
	return Attempt{}, fmt.Errorf("claim a folder for %s: %d attempts were made before", target.Name, maxAttempts)
}

func folder(target Target, number int) string {
	first := target.Prefix + "/artifacts/" + target.Name
	if number == 1 {
		return first
	}
	return fmt.Sprintf("%s/a%d", first, number)
}
