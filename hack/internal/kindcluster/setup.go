package kindcluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"ugallu.io/forensics/hack/internal/engine"
	"ugallu.io/forensics/hack/internal/image"
	"ugallu.io/forensics/hack/internal/registry"
	"ugallu.io/forensics/hack/internal/state"
	"ugallu.io/forensics/hack/internal/step"
)

// unit runs the script at every start of the node container, which forgets mounts and routes.
const unit = `[Unit]
Description=BPF file system and routes to the other nodes' pods
After=network.target
Before=kubelet.service

[Service]
ExecStart=/usr/local/bin/ugallu-node
Restart=always

[Install]
WantedBy=multi-user.target
`

// scriptHead mounts once; the loop after it follows the other nodes when the engine gives them new addresses.
const scriptHead = `#!/bin/bash
set -u
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
`

// setUp gives a node what kind does not: idempotent, and nothing runs when the files are there already.
func setUp(ctx context.Context, node state.Node, all []state.Node, ownNetwork bool) error {
	files, err := nodeFiles(node, all, ownNetwork)
	if err != nil {
		return err
	}
	archive, err := image.Tar(files)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(archive)
	mark := hex.EncodeToString(sum[:])
	there, err := engine.Docker(ctx, "exec", node.Name, "sh", "-c", "cat /etc/ugallu-node.sha256 2>/dev/null || true")
	if err != nil || there == mark {
		return err
	}
	unpack := step.Command{Stdin: bytes.NewReader(archive), Args: []string{"docker", "cp", "-", node.Name + ":/"}}
	if _, err := unpack.Run(ctx); err != nil {
		return err
	}
	_, err = engine.Docker(ctx, "exec", node.Name, "sh", "-c", "systemctl daemon-reload && systemctl enable --quiet ugallu-node && "+
		"systemctl restart ugallu-node && echo "+mark+" >/etc/ugallu-node.sha256")
	return err
}

func nodeFiles(node state.Node, all []state.Node, ownNetwork bool) ([]image.File, error) {
	files := []image.File{
		{Path: "etc/systemd/system/ugallu-node.service", Mode: 0o644, Content: []byte(unit)},
		{Path: "usr/local/bin/ugallu-node", Mode: 0o755, Content: []byte(script(node, all, ownNetwork))},
		{Path: "etc/containerd/certs.d/docker.io/hosts.toml", Mode: 0o644, Content: []byte(mirror())},
	}
	if !ownNetwork {
		return files, nil
	}
	network, err := conflist(node.PodCIDR)
	if err != nil {
		return nil, err
	}
	return append(files, image.File{Path: "etc/cni/net.d/10-ptp.conflist", Mode: 0o644, Content: network}), nil
}

func script(node state.Node, all []state.Node, ownNetwork bool) string {
	var text strings.Builder
	text.WriteString(scriptHead)
	text.WriteString("while true; do\n")
	for _, other := range all {
		if ownNetwork && other.Name != node.Name {
			fmt.Fprintf(&text, "  address=$(getent ahostsv4 %s | head -n1 | cut -d' ' -f1)\n", other.Name)
			fmt.Fprintf(&text, "  [ -n \"$address\" ] && ip route replace %s via \"$address\"\n", other.PodCIDR)
		}
	}
	text.WriteString("  sleep 5\ndone\n")
	return text.String()
}

// mirror sends what would come from Docker Hub to the registry first, and to Docker Hub when it is not there.
func mirror() string {
	return fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", "http://"+registry.InCluster)
}

// conflist is the network plug-ins' configuration: a route per pod, no bridge, and no network policy.
func conflist(podCIDR string) ([]byte, error) {
	type object = map[string]any
	out, err := json.MarshalIndent(object{
		"cniVersion": "0.4.0", "name": "ptp",
		"plugins": []object{
			{"type": "ptp", "ipMasq": false, "ipam": object{
				"type": "host-local", "ranges": [][]object{{{"subnet": podCIDR}}}, "routes": []object{{"dst": "0.0.0.0/0"}},
			}},
			{"type": "portmap", "capabilities": object{"portMappings": true}},
		},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the network configuration: %w", err)
	}
	return out, nil
}
