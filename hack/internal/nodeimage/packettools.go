package nodeimage

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"ugallu.io/forensics/hack/internal/image"
)

// packetPatterns is what kube-proxy runs, with every shared library since which ones is the linker's business.
func packetPatterns() []string {
	return []string{
		"bin", "sbin", "lib", "lib64", "usr/lib64/*", "usr/lib/*-linux-gnu/*.so*", "usr/lib/*-linux-gnu/xtables/*",
		"usr/sbin/iptables*", "usr/sbin/ip6tables*", "usr/sbin/xtables-*", "usr/sbin/nft", "usr/sbin/conntrack",
		"usr/sbin/ipset", "usr/sbin/modprobe", "usr/bin/kmod", "etc/alternatives/ip*tables*",
	}
}

// packetTools takes kube-proxy's tools out of the nodes' root filesystem.
func packetTools(rootfs string) (files []image.File, err error) {
	in, err := os.Open(rootfs) // #nosec G304 -- built by us
	if err != nil {
		return nil, fmt.Errorf("open the root filesystem: %w", err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	for reader := tar.NewReader(in); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the root filesystem: %w", err)
		}
		name := strings.Trim(strings.TrimPrefix(header.Name, "./"), "/")
		if !wanted(name) {
			continue
		}
		file := image.File{Path: name, Mode: header.Mode & 0o777, Link: header.Linkname}
		if header.Typeflag == tar.TypeReg {
			if file.Content, err = io.ReadAll(reader); err != nil {
				return nil, fmt.Errorf("read %s: %w", name, err)
			}
		} else if header.Typeflag != tar.TypeSymlink {
			continue
		}
		files = append(files, file)
	}
}

func wanted(name string) bool {
	for _, pattern := range packetPatterns() {
		if matched, err := path.Match(pattern, name); err == nil && matched {
			return true
		}
	}
	return false
}
