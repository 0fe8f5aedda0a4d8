package victim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ugallu.io/forensics/hack/internal/state"
	"ugallu.io/forensics/hack/internal/step"
)

const (
	suite = "bookworm"
	// revision changes the cached name when the way the tree is made changes.
	revision = "1"

	layerName   = "nginx.tar.gz"
	busyboxName = "busybox"
)

// packages bring what an archive of a root filesystem has to cope with: hard links (perl), symbolic links, set-user-id
// programs (su, mount), a file capability (ping) and an interpreter an intruder would use.
func packages() []string {
	return []string{"nginx-light", "python3-minimal", "iputils-ping", "libcap2-bin", "procps", "busybox-static"}
}

// unwanted is what a container image leaves out.
func unwanted() []string {
	return []string{
		"var/cache/apt/archives/*.deb", "var/cache/apt/*.bin", "var/lib/apt/lists/*", "var/log/*.log", "var/log/apt/*",
		"usr/share/locale/*", "usr/share/man/*", "dev/*",
	}
}

// build returns the folder with the web server's layer and busybox, making it when it is not there.
func build(ctx context.Context) (string, error) {
	assets, err := state.Dir("assets")
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(strings.Join(append(append(packages(), unwanted()...), suite, revision, site), "\n")))
	dir := filepath.Join(assets, "victim-"+hex.EncodeToString(sum[:])[:12])
	err = step.Do("images of the victims", func() error {
		if _, err := os.Stat(dir); err == nil {
			return step.ErrCached
		}
		return bootstrap(ctx, dir)
	})
	return dir, err
}

func bootstrap(ctx context.Context, dir string) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("debootstrap needs root")
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), ".victim-")
	if err != nil {
		return fmt.Errorf("make a build folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	root, out := filepath.Join(work, "root"), filepath.Join(work, "out")
	args := []string{"debootstrap", "--variant=minbase", "--include=" + strings.Join(packages(), ","), suite, root}
	if mirror := debianMirror(ctx); mirror != "" {
		args = append(args, mirror)
	}
	if _, err := (step.Command{Timeout: 20 * time.Minute, Args: args}).Run(ctx); err != nil {
		return err
	}
	if err := furnish(ctx, root); err != nil {
		return err
	}
	if err := os.Mkdir(out, 0o750); err != nil {
		return fmt.Errorf("make %s: %w", out, err)
	}
	for _, args := range [][]string{
		{"cp", filepath.Join(root, "bin", "busybox"), filepath.Join(out, busyboxName)},
		{
			"tar", "--sort=name", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", root,
			"-I", "gzip -1", "-cf", filepath.Join(out, layerName), ".",
		},
	} {
		if _, err := step.Run(ctx, args...); err != nil {
			return err
		}
	}
	if err := os.Rename(out, dir); err != nil {
		return fmt.Errorf("keep %s: %w", dir, err)
	}
	return nil
}

// debianMirror is where this machine's own apt takes the suite from; empty leaves the choice to debootstrap.
func debianMirror(ctx context.Context) string {
	out, err := step.Run(ctx, "apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(out) {
		if mirror, found := strings.CutPrefix(strings.TrimSpace(line), "Debian "+suite+" main "); found {
			return mirror
		}
	}
	return ""
}
