package nodeimage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"ugallu.io/forensics/hack/internal/engine"
	"ugallu.io/forensics/hack/internal/image"
	"ugallu.io/forensics/hack/internal/step"
)

// Build returns the name of a node image built from source, building it when the engine does not have it.
func Build(ctx context.Context) (string, error) {
	found, err := gather(ctx)
	if err != nil {
		return "", err
	}
	ref := found.reference()
	err = step.Do("node image "+ref, func() error {
		if Exists(ctx, ref) {
			return step.ErrCached
		}
		return found.build(ctx, ref)
	})
	return ref, err
}

func (p parts) build(ctx context.Context, ref string) error {
	kind, err := kindFiles(ctx)
	if err != nil {
		return err
	}
	config, err := os.ReadFile(filepath.Join(kind, "etc", "containerd", "config.toml")) // #nosec G304 -- module cache
	if err != nil {
		return fmt.Errorf("read kind's containerd configuration: %w", err)
	}
	files, err := p.files(ctx, kind)
	if err != nil {
		return err
	}
	images, err := p.components(ctx, string(config))
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := image.Save(&archive, images); err != nil {
		return err
	}
	files = append(files, image.File{Path: importArchive, Content: archive.Bytes()})
	layer, err := image.Tar(files)
	if err != nil {
		return err
	}
	base, err := engine.Docker(ctx, "import", "--change", "ENV container=docker", p.rootfs)
	if err != nil {
		return err
	}
	if err := commit(ctx, base, ref, layer); err != nil {
		_, e := engine.Docker(ctx, "rmi", base)
		return errors.Join(err, e)
	}
	return nil
}

const importArchive = "kind/images.tar"

// importScript fills containerd's store. It waits for its end, so that the database is closed when the image is taken.
const importScript = `set -eu
containerd >/var/log/containerd-import.log 2>&1 &
pid=$!
for i in $(seq 100); do ctr version >/dev/null 2>&1 && break; sleep 0.2; done
ctr --namespace k8s.io images import --no-unpack --digests=false /` + importArchive + `
kill "$pid"
wait "$pid" || true
rm -f /` + importArchive + ` /var/log/containerd-import.log
`

// commit fills a container with the files, imports the images in it and keeps the result.
func commit(ctx context.Context, base, ref string, layer []byte) (err error) {
	container, err := engine.Docker(ctx, "run", "--detach", "--privileged", "--stop-signal", "SIGRTMIN+3",
		"--entrypoint", "/bin/sleep", base, "3600")
	if err != nil {
		return err
	}
	defer func() {
		_, e := engine.Docker(ctx, "rm", "--force", "--volumes", container)
		err = errors.Join(err, e)
	}()
	unpack := step.Command{Stdin: bytes.NewReader(layer), Args: []string{"docker", "cp", "-", container + ":/"}}
	if _, err := unpack.Run(ctx); err != nil {
		return err
	}
	fill := step.Command{Timeout: 5 * time.Minute, Args: []string{"docker", "exec", container, "sh", "-c", importScript}}
	if _, err := fill.Run(ctx); err != nil {
		return err
	}
	_, err = engine.Docker(ctx, "commit", "--change", `ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]`,
		container, ref)
	return err
}
