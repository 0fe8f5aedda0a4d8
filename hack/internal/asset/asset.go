package asset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"ugallu.io/forensics/hack/internal/state"
	"ugallu.io/forensics/hack/internal/step"
)

// Program is a set of main packages of one module at one version.
type Program struct {
	Name     string
	Module   string
	Version  string
	Packages []string
	Tags     string
	LDFlags  string
	// Binary renames the one binary built; go names it by the last element of its import path otherwise.
	Binary string
	// Source is a folder of ours that holds its own module; Module and Version are empty then.
	Source string
	// GoMod writes a go.mod that `go get` alone cannot make.
	GoMod func(ctx context.Context, dir string) error `json:"-"`
}

// Build returns the folder that holds the program's binaries, building it when it is not there.
func (p Program) Build(ctx context.Context) (string, error) {
	dir, err := p.Dir()
	if err != nil {
		return "", err
	}
	err = step.Do("build "+p.Name+" "+p.Version, func() error {
		if _, err := os.Stat(dir); err == nil {
			return step.ErrCached
		}
		return p.build(ctx, dir)
	})
	return dir, err
}

// Dir is where the program's binaries belong.
func (p Program) Dir() (string, error) {
	assets, err := state.Dir("assets")
	if err != nil {
		return "", err
	}
	spec, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("describe %s: %w", p.Name, err)
	}
	hash := sha256.New()
	hash.Write(fmt.Appendf(nil, "%s %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH))
	hash.Write(spec)
	if p.Source != "" {
		if err := HashTree(hash, p.Source); err != nil {
			return "", err
		}
	}
	return filepath.Join(assets, p.Name+"-"+hex.EncodeToString(hash.Sum(nil))[:12]), nil
}

func (p Program) build(ctx context.Context, dir string) (err error) {
	work, err := os.MkdirTemp(filepath.Dir(dir), ".build-")
	if err != nil {
		return fmt.Errorf("make a build folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	source := p.Source
	if source == "" {
		source = work
		if err := p.scratchModule(ctx, work); err != nil {
			return err
		}
	}
	out := filepath.Join(work, "out")
	if err := os.Mkdir(out, 0o750); err != nil {
		return fmt.Errorf("make %s: %w", out, err)
	}
	target := out + "/"
	if p.Binary != "" {
		target = filepath.Join(out, p.Binary)
	}
	args := []string{"go", "build", "-trimpath", "-tags", p.Tags, "-ldflags", "-s -w " + p.LDFlags, "-o", target}
	build := step.Command{Dir: source, Env: Env(), Timeout: 40 * time.Minute, Args: append(args, p.Packages...)}
	if _, err := build.Run(ctx); err != nil {
		return err
	}
	return keep(out, dir)
}

// scratchModule makes a module that requires the program's packages with the versions its own go.mod asks for.
func (p Program) scratchModule(ctx context.Context, dir string) error {
	if p.GoMod != nil {
		return p.GoMod(ctx, dir)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module scratch\n"), 0o600); err != nil {
		return fmt.Errorf("write go.mod: %w", err)
	}
	for _, pkg := range p.Packages {
		get := step.Command{Dir: dir, Env: Env(), Args: []string{"go", "get", pkg + "@" + p.Version}}
		if _, err := get.Run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Env is what every go command of a build runs with.
func Env() []string {
	return []string{"CGO_ENABLED=0", "GOWORK=off", "GOTOOLCHAIN=local", "GOFLAGS=-buildvcs=false"}
}
