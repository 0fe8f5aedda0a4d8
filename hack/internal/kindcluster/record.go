package kindcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"ugallu.io/forensics/hack/internal/engine/capability"
	"ugallu.io/forensics/hack/internal/nodeimage"
	"ugallu.io/forensics/hack/internal/state"
	"ugallu.io/forensics/hack/internal/step"
)

// recordName is the file that says from which settings the cluster was made.
const recordName = "made-from.json"

// want is how the cluster should be made on this machine today.
func want(ctx context.Context) (settings, error) {
	lacking, err := capability.Missing()
	if err != nil {
		return settings{}, err
	}
	scores := strings.Contains(strings.Join(lacking, " "), "CAP_SYS_RESOURCE")
	image, err := chooseImage(ctx)
	if err != nil {
		return settings{}, err
	}
	return settings{Image: image, OwnNetwork: !nodeimage.IsPublished(image), KeepScores: scores}, nil
}

// chooseImage stays with a published image that was once pulled, so that a later run asks no registry.
func chooseImage(ctx context.Context) (string, error) {
	recorded, err := recall()
	if err != nil {
		return "", err
	}
	if recorded.Image != "" && nodeimage.Exists(ctx, recorded.Image) {
		if nodeimage.IsPublished(recorded.Image) {
			return recorded.Image, nil
		}
		return nodeimage.Build(ctx)
	}
	image, err := nodeimage.Published(ctx)
	if err != nil || image != "" {
		return image, err
	}
	return nodeimage.Build(ctx)
}

func recall() (settings, error) {
	var recorded settings
	err := state.Read(recordName, &recorded)
	if errors.Is(err, fs.ErrNotExist) {
		return settings{}, nil
	}
	return recorded, err
}

func makeCluster(ctx context.Context, kind string, wanted settings) error {
	kubeconfig, err := state.Path("kubeconfig")
	if err != nil {
		return err
	}
	if err := state.Forget(recordName); err != nil {
		return err
	}
	command := step.Command{Timeout: 10 * time.Minute, Stdin: strings.NewReader(wanted.config()), Args: []string{
		kind, "create", "cluster", "--config", "-", "--kubeconfig", kubeconfig,
	}}
	if _, err := command.Run(ctx); err != nil {
		return err
	}
	return state.Write(recordName, wanted)
}

// lock keeps two runs from making the same cluster; it waits for the other one.
func lock() (unlock func() error, err error) {
	path, err := state.Path("lock")
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) // #nosec G304 -- our own folder
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the cluster: %w", err), file.Close())
	}
	return file.Close, nil
}
