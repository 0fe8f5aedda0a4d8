package kindcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ugallu.io/forensics/hack/internal/engine"
)

// thawers undo a freeze, by the name of the cgroup file: of the v1 controller and of v2.
var thawers = map[string]struct{ frozen, thaw string }{
	"freezer.state": {"FROZEN", "THAWED"},
	"cgroup.freeze": {"1", "0"},
}

// thaw sets everything going that is frozen in the node containers: a frozen process does not take the signal that ends
// it, and the engine gives up waiting for it. A pod that an incident still holds is such a process. Containers that the
// engine believes gone count as well: where it was killed, their processes may be there, on the address of their node.
func thaw(ctx context.Context, root string) error {
	ids, err := engine.Docker(ctx, "ps", "--all", "--no-trunc", "--quiet", "--filter", "label=io.x-k8s.kind.cluster="+Name)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range strings.Fields(ids) {
		errs = append(errs, thawBelow(root, id))
	}
	return errors.Join(errs...)
}

// thawBelow thaws every cgroup below root that belongs to a container.
func thawBelow(root, id string) error {
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		thawer, ok := thawers[filepath.Base(file)]
		if err != nil || entry.IsDir() || !ok || !strings.Contains(file, id) {
			return err
		}
		state, err := os.ReadFile(file) // #nosec G122 -- the kernel makes this tree, and no links in it
		if errors.Is(err, fs.ErrNotExist) || err == nil && string(bytes.TrimSpace(state)) != thawer.frozen {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(file, []byte(thawer.thaw), 0) // #nosec G122 -- the same
	})
	if err != nil {
		return fmt.Errorf("thaw what is frozen in container %.12s: %w", id, err)
	}
	return nil
}
