package servers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"ugallu.io/forensics/hack/internal/state"
)

// through calls use with an address on loopback that leads to a server's port while use runs.
func through(ctx context.Context, env state.Env, server, port string, use func(ctx context.Context, address string) error) (err error) {
	forward := exec.CommandContext(ctx, env.Kubectl, "-n", namespace, "port-forward", "service/"+server, ":"+port) // #nosec G204 -- ours
	forward.Env = append(os.Environ(), "KUBECONFIG="+env.Kubeconfig)
	stdout, err := forward.StdoutPipe()
	if err != nil {
		return fmt.Errorf("pipe of the forward to %s: %w", server, err)
	}
	var stderr bytes.Buffer
	forward.Stderr = &stderr
	if err := forward.Start(); err != nil {
		return fmt.Errorf("forward a port to %s: %w", server, err)
	}
	lines := bufio.NewReader(stdout)
	drained := make(chan error, 1)
	defer func() { err = errors.Join(err, end(forward, drained)) }()
	first, err := lines.ReadString('\n')
	go func() {
		_, err := io.Copy(io.Discard, lines)
		drained <- err
	}()
	_, rest, found := strings.Cut(first, "Forwarding from ")
	if err != nil || !found {
		return fmt.Errorf("forward a port to %s: kubectl said %q %q", server, first, stderr.String())
	}
	return use(ctx, strings.Fields(rest)[0])
}

func end(forward *exec.Cmd, drained <-chan error) error {
	if err := forward.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end the port forward: %w", err)
	}
	copied := <-drained
	var killed *exec.ExitError
	if err := forward.Wait(); err != nil && !errors.As(err, &killed) {
		return errors.Join(err, copied)
	}
	return copied
}
