// Command capruntime is an OCI runtime: runc, with the capabilities that the machine withholds taken out of each specification.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"ugallu.io/forensics/hack/internal/engine/capability"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "capruntime:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	lacking, err := capability.Missing()
	if err != nil {
		return err
	}
	for _, path := range specifications(args) {
		if err := filterFile(path, lacking); err != nil {
			return err
		}
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		return fmt.Errorf("find runc: %w", err)
	}
	// #nosec G204 -- the engine chose the arguments
	if err := syscall.Exec(runc, append([]string{"runc"}, args...), os.Environ()); err != nil {
		return fmt.Errorf("run %s: %w", runc, err)
	}
	return nil
}

// specifications are the files among a runtime's arguments that hold capabilities.
func specifications(args []string) []string {
	var files []string
	for i, arg := range args {
		name, value, joined := strings.Cut(arg, "=")
		if !joined && i+1 < len(args) {
			value = args[i+1]
		}
		switch name {
		case "--bundle", "-b":
			files = append(files, filepath.Join(value, "config.json"))
		case "--process", "-p":
			files = append(files, value)
		}
	}
	return files
}

func filterFile(path string, lacking []string) error {
	specification, err := os.ReadFile(path) // #nosec G304 -- the engine named it
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	filtered, err := capability.Filter(specification, lacking)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := os.WriteFile(path, filtered, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
