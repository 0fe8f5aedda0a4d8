package asset

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ugallu.io/forensics/hack/internal/state"
)

// Join returns one folder with links to every file of several asset folders, named by those folders' own names.
func Join(name string, folders []string) (string, error) {
	assets, err := state.Dir("assets")
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(strings.Join(folders, "\n")))
	dir := filepath.Join(assets, name+"-"+hex.EncodeToString(sum[:])[:12])
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("make %s: %w", dir, err)
	}
	for _, folder := range folders {
		files, err := os.ReadDir(folder)
		if err != nil {
			return "", fmt.Errorf("list %s: %w", folder, err)
		}
		for _, file := range files {
			err := os.Symlink(filepath.Join(folder, file.Name()), filepath.Join(dir, file.Name()))
			if err != nil && !errors.Is(err, fs.ErrExist) {
				return "", fmt.Errorf("link %s: %w", file.Name(), err)
			}
		}
	}
	return dir, nil
}
