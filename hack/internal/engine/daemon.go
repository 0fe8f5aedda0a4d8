package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ugallu.io/forensics/hack/internal/asset"
	"ugallu.io/forensics/hack/internal/engine/capability"
	"ugallu.io/forensics/hack/internal/state"
	"ugallu.io/forensics/hack/internal/step"
)

// daemon is the part of dockerd's configuration file that is ours.
type daemon struct {
	DataRoot       string                `json:"data-root"`
	ExecRoot       string                `json:"exec-root"`
	PIDFile        string                `json:"pidfile"`
	Hosts          []string              `json:"hosts"`
	DefaultRuntime string                `json:"default-runtime,omitempty"`
	Runtimes       map[string]ociRuntime `json:"runtimes,omitempty"`
}

type ociRuntime struct {
	Path string `json:"path"`
}

const (
	runtimeName = "runc-capabilities"
	pidFile     = "/run/ugallu-engine.pid"
)

// configuration is the daemon's; wrapper is empty where the machine withholds no capability.
func configuration(dir, wrapper string) daemon {
	config := daemon{
		DataRoot: filepath.Join(dir, "data"),
		// Socket paths have a limit of 108 bytes, so what holds sockets stays out of a home folder.
		ExecRoot: "/run/ugallu-engine",
		PIDFile:  pidFile,
		Hosts:    []string{"unix:///var/run/docker.sock"},
	}
	if wrapper != "" {
		config.DefaultRuntime = runtimeName
		config.Runtimes = map[string]ociRuntime{runtimeName: {Path: wrapper}}
	}
	return config
}

// start runs dockerd by hand, detached, with everything it writes in our own folders.
func start(ctx context.Context) error {
	dir, err := state.Dir("engine")
	if err != nil {
		return err
	}
	wrapper, err := wrapperFor(ctx)
	if err != nil {
		return err
	}
	config := configuration(dir, wrapper)
	if err := forgetDead(config); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return fmt.Errorf("write the engine's configuration: %w", err)
	}
	file := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		return fmt.Errorf("write the engine's configuration: %w", err)
	}
	logFile := filepath.Join(dir, "dockerd.log")
	if err := detach(logFile, "dockerd", "--config-file", file); err != nil {
		return err
	}
	err = step.Wait(ctx, time.Minute, func(ctx context.Context) (bool, error) { return Answers(ctx), nil })
	if err != nil {
		return fmt.Errorf("wait for dockerd, whose log is %s: %w", logFile, err)
	}
	return nil
}

// Stop ends the engine that Ensure started, and no other; what it holds on disk stays.
func Stop(ctx context.Context) error {
	raw, err := os.ReadFile(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the engine's process id: %w", err)
	}
	text := strings.TrimSpace(string(raw))
	if !runs(text, "dockerd") {
		return nil
	}
	pid, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("read the engine's process id: %w", err)
	}
	return step.Do("stop the engine", func() error {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			return fmt.Errorf("stop dockerd: %w", err)
		}
		// dockerd gives running containers ten seconds and itself five more.
		return step.Wait(ctx, 30*time.Second, func(context.Context) (bool, error) { return !runs(text, "dockerd"), nil })
	})
}

// wrapperFor builds the runtime wrapper where this machine withholds a capability, which would make every privileged
// container end with "unable to apply caps".
func wrapperFor(ctx context.Context) (string, error) {
	lacking, err := capability.Missing()
	if err != nil || len(lacking) == 0 {
		return "", err
	}
	return asset.Command(ctx, "./hack/internal/engine/capruntime")
}

// forgetDead removes process id files that a killed engine left: dockerd takes any process with that id for itself.
func forgetDead(config daemon) error {
	for file, program := range map[string]string{
		config.PIDFile: "dockerd",
		filepath.Join(config.ExecRoot, "containerd", "containerd.pid"): "containerd",
	} {
		raw, err := os.ReadFile(file) // #nosec G304 -- a fixed name of ours
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		if runs(strings.TrimSpace(string(raw)), program) {
			continue
		}
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("remove a dead process' id: %w", err)
		}
	}
	return nil
}

// runs tells whether the process is there and runs that program; a zombie does not.
func runs(pid, program string) bool {
	if _, err := strconv.Atoi(pid); err != nil {
		return false
	}
	target, err := os.Readlink("/proc/" + pid + "/exe")
	return err == nil && filepath.Base(target) == program
}

func detach(logFile string, args ...string) error {
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) // #nosec G304 -- our own folder
	if err != nil {
		return fmt.Errorf("open the engine's log: %w", err)
	}
	cmd := exec.Command(args[0], args[1:]...) // #nosec G204 -- ours
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = errors.Join(cmd.Start(), out.Close())
	if err != nil {
		return fmt.Errorf("start %s: %w", args[0], err)
	}
	if err := cmd.Process.Release(); err != nil {
		return fmt.Errorf("let go of %s: %w", args[0], err)
	}
	return nil
}
