package asset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
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
// named by the hash of the sources, so that a path never changes what it means while something runs from it.
func Command(ctx context.Context, pkg string) (string, error) {
	root, err := Checkout(ctx)
	if err != nil {
		return "", err
	}
	assets, err := state.Dir("assets")
	if err != nil {
		return "", err
	}
	key, err := sources(ctx, root, pkg)
	if err != nil {
		return "", err
	}
	name := path.Base(pkg)
	dir := filepath.Join(assets, name+"-"+key)
	if _, err := os.Stat(dir); err != nil {
		if err := buildCommand(ctx, root, pkg, dir); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, name), nil
}

func buildCommand(ctx context.Context, root, pkg, dir string) (err error) {
	work, err := os.MkdirTemp(filepath.Dir(dir), ".command-")
	if err != nil {
		return fmt.Errorf("make a build folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	out := filepath.Join(work, "out")
	build := step.Command{Dir: root, Env: Env(), Args: []string{
		// Without grpc's tracing pages the linker can tell which methods nobody calls: a quarter of the agent's program.
		"go", "build", "-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w", "-o", filepath.Join(out, path.Base(pkg)), pkg,
	}}
	if _, err := build.Run(ctx); err != nil {
		return err
	}
	return keep(out, dir)
}

// listing has a line for each package that is not Go's own: its module, and for one of ours its folder and files.
const listing = `{{if not .Standard}}{{.Module.Path}} {{.Module.Version}}{{if .Module.Main}}` +
	`{{$dir := .Dir}}{{range .GoFiles}} {{$dir}}/{{.}}{{end}}{{range .EmbedFiles}} {{$dir}}/{{.}}{{end}}{{end}}{{end}}`

// sources hashes what a binary is made from: our files by content, other modules by version, and the Go release.
func sources(ctx context.Context, root, pkg string) (string, error) {
	list := step.Command{Dir: root, Env: Env(), Args: []string{"go", "list", "-deps", "-f", listing, pkg}}
	out, err := list.Run(ctx)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	hash.Write(fmt.Appendf(nil, "%s %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH))
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		for i, field := range fields {
			if err := hashField(hash, root, field, i); err != nil {
				return "", err
			}
		}
	}
	return hex.EncodeToString(hash.Sum(nil))[:12], nil
}

// hashField hashes a file's name inside the checkout and its content; the first field of a line is a module's path.
func hashField(hash io.Writer, root, field string, index int) error {
	name, ours := strings.CutPrefix(field, root+string(filepath.Separator))
	if index == 0 || !ours {
		_, err := fmt.Fprintln(hash, field)
		return err
	}
	content, err := os.ReadFile(field) // #nosec G304 -- our own sources
	if err != nil {
		return fmt.Errorf("hash %s: %w", name, err)
	}
	_, err = fmt.Fprintf(hash, "%s %d\n%s\n", name, len(content), content)
	return err
}
