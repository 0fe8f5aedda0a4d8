package asset

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// HashTree writes every regular file of a folder, name and content, into a hash in a fixed order.
func HashTree(hash io.Writer, dir string) error {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path) // #nosec G304 G122 -- our own sources
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(hash, "%s %d\n%s\n", name, len(content), content)
		return err
	})
	if err != nil {
		return fmt.Errorf("hash %s: %w", dir, err)
	}
	return nil
}
