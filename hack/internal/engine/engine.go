package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"ugallu.io/forensics/hack/internal/step"
)

// advice is the answer where no engine runs and none can be started by us.
const advice = "no container engine answers: install Docker Engine 20.10 or later and start it, https://docs.docker.com/engine/install"

// Ensure makes an engine answer. One that answers already is used as it is, never reconfigured.
func Ensure(ctx context.Context) error {
	return step.Do("container engine", func() error {
		if Answers(ctx) {
			return step.ErrCached
		}
		if err := canStart(); err != nil {
			return err
		}
		if _, err := exec.LookPath("dockerd"); err != nil {
			if err := install(ctx); err != nil {
				return err
			}
		}
		// Where the package's own service came up there is nothing left to start.
		if Answers(ctx) {
			return nil
		}
		return start(ctx)
	})
}

// Docker runs the engine's client and returns what it printed.
func Docker(ctx context.Context, args ...string) (string, error) {
	out, err := step.Run(ctx, append([]string{"docker"}, args...)...)
	return strings.TrimSpace(out), err
}

// Answers tells whether an engine runs.
func Answers(ctx context.Context) bool {
	ask := step.Command{Timeout: 20 * time.Second, Args: []string{"docker", "version", "--format", "{{.Server.Version}}"}}
	_, err := ask.Run(ctx)
	return err == nil
}

// canStart says what a person has to do where starting an engine is not ours to do.
func canStart() error {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		if _, err := exec.LookPath("dockerd"); err == nil {
			return errors.New("the container engine is stopped; start it: systemctl start docker")
		}
	}
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return errors.New(advice)
	}
	if _, err := os.Stat("/etc/debian_version"); err != nil {
		return errors.New(advice)
	}
	return nil
}

func install(ctx context.Context) error {
	quiet := []string{"DEBIAN_FRONTEND=noninteractive"}
	update := step.Command{Env: quiet, Args: []string{"apt-get", "update"}}
	if _, err := update.Run(ctx); err != nil {
		return err
	}
	packages := step.Command{Env: quiet, Args: []string{
		"apt-get", "install", "-y", "--no-install-recommends", "docker.io", "iptables", "ca-certificates",
	}}
	if _, err := packages.Run(ctx); err != nil {
		return fmt.Errorf("install Debian's engine: %w", err)
	}
	return nil
}
