package victim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"ugallu.io/forensics/hack/internal/step"
)

// site serves on IPv4 alone: Debian's own asks for an IPv6 socket, which a node may not have.
const site = `server {
	listen 80 default_server;
	root /var/www/html;
	index index.html index.nginx-debian.html;
	server_name _;
	location / {
		try_files $uri $uri/ =404;
	}
}
`

// furnish turns a bootstrapped tree into what the web server's image holds.
func furnish(ctx context.Context, root string) error {
	for _, pattern := range unwanted() {
		matches, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return fmt.Errorf("match %s: %w", pattern, err)
		}
		for _, match := range matches {
			if err := os.RemoveAll(match); err != nil {
				return fmt.Errorf("trim the tree: %w", err)
			}
		}
	}
	sites := filepath.Join(root, "etc", "nginx", "sites-available", "default")
	if err := os.WriteFile(sites, []byte(site), 0o644); err != nil { // #nosec G306 -- read by the web server's own account
		return fmt.Errorf("write %s: %w", sites, err)
	}
	for name, target := range map[string]string{"access.log": "/dev/stdout", "error.log": "/dev/stderr"} {
		link := filepath.Join(root, "var", "log", "nginx", name)
		if err := os.RemoveAll(link); err != nil {
			return fmt.Errorf("clear the log: %w", err)
		}
		if err := os.Symlink(target, link); err != nil {
			return fmt.Errorf("send the log to the container's output: %w", err)
		}
	}
	// The package sets it only where its scripts find setcap, which depends on the order of installation.
	_, err := step.Run(ctx, "chroot", root, "setcap", "cap_net_raw+ep", "/usr/bin/ping")
	return err
}
