package asset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"ugallu.io/forensics/hack/internal/state"
	"ugallu.io/forensics/hack/internal/step"
)

// Checkout is the root of the module that the caller works in.
func Checkout(ctx context.Context) (string, error) {
	out, err := step.Run(ctx, "go", "env", "GOMOD")
	if err != nil {
		return "", err
	}
	file := strings.TrimSpace(out)
	if filepath.Base(file) != "go.mod" {
		return "", errors.New("not inside the checkout: no go.mod above the working directory")
	}
	return filepath.Dir(file), nil
}

// Command builds a main package of this checkout, "./controller", and returns the path of the binary. Its folder is
// named by the hash of the binary, so that a path never changes what it means while something runs from it.
func Command(ctx context.Context, pkg string) (binary string, err error) {
	root, err := Checkout(ctx)
	if err != nil {
		return "", err
	}
	assets, err := state.Dir("assets")
	if err != nil {
		return "", err
	}
	name := path.Base(pkg)
	work, err := os.MkdirTemp(assets, ".command-")
	if err != nil {
		return "", fmt.Errorf("make a build folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	built := filepath.Join(work, "out", name)
	build := step.Command{Dir: root, Env: Env(), Args: []string{"go", "build", "-trimpath", "-ldflags", "-s -w", "-o", built, pkg}}
	if _, err := build.Run(ctx); err != nil {
		return "", err
	}
	content, err := os.ReadFile(built) // #nosec G304 -- built above
	if err != nil {
		return "", fmt.Errorf("read %s: %w", built, err)
	}
	sum := sha256.Sum256(content)
	dir := filepath.Join(assets, name+"-"+hex.EncodeToString(sum[:])[:12])
	if _, err := os.Stat(dir); err == nil {
		return filepath.Join(dir, name), nil
	}
	if err := os.Rename(filepath.Dir(built), dir); err != nil {
		return "", fmt.Errorf("keep %s: %w", dir, err)
	}
	return filepath.Join(dir, name), nil
}
