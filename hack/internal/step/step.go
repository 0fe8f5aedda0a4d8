package step

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// ErrCached is returned by a step's function that found its result already there.
var ErrCached = errors.New("cached")

// Do runs one named step and prints its duration on stderr. ErrCached is success.
func Do(name string, run func() error) error {
	start := time.Now()
	err := run()
	took := time.Since(start).Round(100 * time.Millisecond)
	switch {
	case errors.Is(err, ErrCached):
		fmt.Fprintf(os.Stderr, "  ✓ %-44s %8s (cached)\n", name, took)
		return nil
	case err != nil:
		fmt.Fprintf(os.Stderr, "  ✗ %-44s %8s\n", name, took)
		return fmt.Errorf("%s: %w", name, err)
	default:
		fmt.Fprintf(os.Stderr, "  ✓ %-44s %8s\n", name, took)
		return nil
	}
}

// Command is one external command.
type Command struct {
	Dir   string
	Env   []string
	Stdin io.Reader
	// Timeout bounds the command; 0 is ten minutes.
	Timeout time.Duration
	Args    []string
}

// Run runs a command and returns its standard output. The error carries the end of what it said.
func Run(ctx context.Context, args ...string) (string, error) {
	return Command{Args: args}.Run(ctx)
}

// Run runs the command and returns its standard output. The error carries the end of what it said.
func (c Command) Run(ctx context.Context) (string, error) {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = 10 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...) // #nosec G204 -- commands are ours
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Dir, c.Stdin, &stdout, &stderr
	cmd.Env = append(os.Environ(), c.Env...)
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w after %s", ctx.Err(), timeout)
		}
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(c.Args, " "), err, tail(stderr.String()+stdout.String()))
	}
	return stdout.String(), nil
}

// tail keeps the last lines, where tools put the cause.
func tail(text string) string {
	const most = 1500
	text = strings.TrimSpace(text)
	if len(text) > most {
		return "…" + text[len(text)-most:]
	}
	return text
}

// Wait polls until done answers true, an error is final, or the time is over.
func Wait(ctx context.Context, timeout time.Duration, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		ok, err := done(ctx)
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", timeout, ctx.Err())
		case <-time.After(500 * time.Millisecond):
		}
	}
}
