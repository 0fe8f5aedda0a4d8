package rootfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"ugallu.io/forensics/hack/internal/state"
	"ugallu.io/forensics/hack/internal/step"
)

const (
	suite = "bookworm"
	// revision changes the cached name when the way a tree is trimmed changes.
	revision = "1"
)

// packages are those of kind's own base image, less what only NFS and iSCSI volumes need.
func packages() []string {
	return []string{
		"systemd", "systemd-sysv", "dbus", "kmod", "iproute2", "iptables", "nftables", "conntrack", "ipset", "ethtool",
		"socat", "procps", "mount", "util-linux", "e2fsprogs", "runc", "containernetworking-plugins", "jq", "libseccomp2",
		"ca-certificates", "bash",
	}
}

// unwanted are the units that Debian starts and that make no sense in a container, as kind's base image removes them.
func unwanted() []string {
	return []string{
		"lib/systemd/system/multi-user.target.wants/*", "etc/systemd/system/*.wants/*",
		"lib/systemd/system/local-fs.target.wants/*", "lib/systemd/system/basic.target.wants/*",
		"lib/systemd/system/sockets.target.wants/*udev*", "lib/systemd/system/sockets.target.wants/*initctl*",
		"lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
		"var/cache/apt/archives/*.deb", "var/cache/apt/*.bin", "var/lib/apt/lists/*", "usr/share/doc/*",
		"usr/share/man/*", "usr/share/locale/*", "var/log/*.log", "etc/machine-id",
	}
}

// Build returns a tar of the root filesystem, making it when it is not there.
func Build(ctx context.Context) (string, error) {
	assets, err := state.Dir("assets")
	if err != nil {
		return "", err
	}
	inputs := strings.Join(append(append(packages(), unwanted()...), suite, revision), "\n")
	sum := sha256.Sum256([]byte(inputs))
	path := filepath.Join(assets, "rootfs-"+hex.EncodeToString(sum[:])[:12]+".tar")
	err = step.Do("root filesystem of the nodes", func() error {
		if _, err := os.Stat(path); err == nil {
			return step.ErrCached
		}
		return build(ctx, path)
	})
	return path, err
}

func build(ctx context.Context, path string) (err error) {
	if err := ensureTool(ctx); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(path), ".rootfs-")
	if err != nil {
		return fmt.Errorf("make a build folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	dir := filepath.Join(work, "root")
	bootstrap := step.Command{Timeout: 20 * time.Minute, Args: []string{
		"debootstrap", "--variant=minbase", "--include=" + strings.Join(packages(), ","), suite, dir,
	}}
	if _, err := bootstrap.Run(ctx); err != nil {
		return err
	}
	if err := trim(dir); err != nil {
		return err
	}
	part := filepath.Join(work, "rootfs.tar")
	if _, err := step.Run(ctx, "tar", "--sort=name", "--numeric-owner", "-C", dir, "-cf", part, "."); err != nil {
		return err
	}
	if err := os.Rename(part, path); err != nil {
		return fmt.Errorf("keep %s: %w", path, err)
	}
	return nil
}

// ensureTool makes debootstrap be there, where that is ours to do.
func ensureTool(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("building a node image needs root; where a registry can be reached, kind's own image is pulled instead")
	}
	if _, err := exec.LookPath("debootstrap"); err == nil {
		return nil
	}
	if _, err := os.Stat("/etc/debian_version"); err != nil {
		return errors.New("building a node image needs debootstrap; install it with the system's package manager")
	}
	install := step.Command{Env: []string{"DEBIAN_FRONTEND=noninteractive"}, Args: []string{
		"sh", "-c", "apt-get update && apt-get install -y --no-install-recommends debootstrap",
	}}
	_, err := install.Run(ctx)
	return err
}

func trim(dir string) error {
	for _, pattern := range unwanted() {
		matches, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return fmt.Errorf("match %s: %w", pattern, err)
		}
		for _, match := range matches {
			if err := os.RemoveAll(match); err != nil {
				return fmt.Errorf("trim the root filesystem: %w", err)
			}
		}
	}
	return nil
}
