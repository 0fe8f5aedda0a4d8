package byhand

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Mode is how an incident was signed. A block whose fence names another mode after `sh` is left out.
type Mode string

// Modes of signing.
const (
	Key     Mode = "key"
	Keyless Mode = "keyless"
)

// tools are all that the document may call beside the shell's own commands.
var tools = []string{"cat", "jq", "mkdir", "sha256sum", "tar", "zstd"}

// block is a fenced block of the document, and the heading that it stands under.
type block struct{ heading, text string }

// Incident is what the document's reader has.
type Incident struct {
	// Folder holds the objects by their keys. The commands leave what they make in it.
	Folder string
	// TrustedRoot is a file. Key is one as well, of mode Key; Identity and Issuer are of mode Keyless.
	TrustedRoot, Key, Identity, Issuer string
}

// RefusedError says which step of the document did not pass.
type RefusedError struct {
	// Step is its heading.
	Step string
	// Said is what the commands printed.
	Said string
}

func (e *RefusedError) Error() string { return fmt.Sprintf("step %q is refused:\n%s", e.Step, e.Said) }

// Verify runs the document's commands over an incident with the cosign that is given, and returns what they printed. A
// *RefusedError says that one of them ended otherwise than with success.
func Verify(ctx context.Context, document, cosign string, mode Mode, incident Incident) (string, error) {
	blocks := read(document, mode)
	if len(blocks) == 0 {
		return "", fmt.Errorf("the document has no commands of mode %s", mode)
	}
	home, err := os.MkdirTemp("", "by-hand-")
	if err != nil {
		return "", fmt.Errorf("make a home: %w", err)
	}
	defer func() { _ = os.RemoveAll(home) }() // links and what cosign keeps; nothing that a result rests on
	if err := link(home, cosign); err != nil {
		return "", err
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		return "", fmt.Errorf("find the shell: %w", err)
	}
	step := filepath.Join(home, "step")
	shell := exec.CommandContext(ctx, bash, "-euo", "pipefail", "-c", script(blocks, step)) // #nosec G204 -- our own document
	shell.Dir = incident.Folder
	// A proxy that is not there shows whoever asks the network.
	shell.Env = []string{
		"PATH=" + home, "HOME=" + home, "HTTP_PROXY=http://127.0.0.1:1", "HTTPS_PROXY=http://127.0.0.1:1", "TRUSTED_ROOT=" + incident.TrustedRoot,
		"KEY=" + incident.Key, "IDENTITY=" + incident.Identity, "ISSUER=" + incident.Issuer,
	}
	var said bytes.Buffer
	shell.Stdout, shell.Stderr = &said, &said
	err = shell.Run()
	var ended *exec.ExitError
	if err == nil || !errors.As(err, &ended) || ctx.Err() != nil {
		return said.String(), err
	}
	reached, err := os.ReadFile(step)
	if err != nil {
		return said.String(), fmt.Errorf("read which step was reached: %w", err)
	}
	return said.String(), &RefusedError{Step: strings.TrimSpace(string(reached)), Said: said.String()}
}

// link makes a folder in which there are the document's tools and nothing else.
func link(folder, cosign string) error {
	found := map[string]string{"cosign": cosign}
	for _, tool := range tools {
		path, err := exec.LookPath(tool)
		if err != nil {
			return fmt.Errorf("find %s: %w", tool, err)
		}
		found[tool] = path
	}
	for name, path := range found {
		if err := os.Symlink(path, filepath.Join(folder, name)); err != nil {
			return fmt.Errorf("link %s: %w", name, err)
		}
	}
	return nil
}

// script is all blocks in one shell, each after a note of which one it is.
func script(blocks []block, step string) string {
	var lines strings.Builder
	for _, b := range blocks {
		fmt.Fprintf(&lines, "echo %s > %s\n%s", quote(b.heading), quote(step), b.text)
	}
	return lines.String()
}

func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// read returns the blocks of shell commands that a mode runs.
func read(document string, mode Mode) []block {
	var blocks []block
	heading, inside, taken := "", false, false
	for line := range strings.Lines(document) {
		fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && inside:
			inside = false
		case isFence:
			language, of, _ := strings.Cut(fence, " ")
			inside, taken = true, language == "sh" && (of == "" || Mode(of) == mode)
			if taken {
				blocks = append(blocks, block{heading: heading})
			}
		case inside && taken:
			blocks[len(blocks)-1].text += line
		case !inside && strings.HasPrefix(line, "## "):
			heading = strings.TrimSpace(strings.TrimPrefix(line, "## "))
		}
	}
	return blocks
}
