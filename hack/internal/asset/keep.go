package asset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// keep gives a built folder its name. The rename is what makes a half-built folder impossible to mistake for a result.
// Where another process was faster, its result is of the same inputs.
func keep(out, dir string) error {
	if err := os.Rename(out, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep %s: %w", dir, err)
	}
	return nil
}
