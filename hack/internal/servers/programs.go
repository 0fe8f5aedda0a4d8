package servers

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"

	"ugallu.io/forensics/hack/internal/asset"
)

// Names of the servers: of their binaries in Binaries, and of their Services and Deployments in the cluster.
const (
	MinIO   = "minio"
	Rekor   = "rekor"
	TSA     = "tsa"
	Transit = "transit"
	// MC is MinIO's command-line client; it runs on this machine only.
	MC = "mc"
)

// program says how one binary is made. The versions are the newest that build with this Go release.
type program struct {
	name   string
	binary string
	asset.Program
}

// programs lists every binary; a keyless certificate authority is one more entry here and in manifests/servers.
func programs() ([]program, error) {
	source, err := moduleFolder()
	if err != nil {
		return nil, err
	}
	return []program{
		{name: Transit, binary: "transit", Program: asset.Program{
			Name: "transit", Source: filepath.Join(source, "transit"), Packages: []string{"."}, Binary: "transit",
		}},
		{name: Rekor, binary: "rekor-server-posix", Program: asset.Program{
			Name: "rekor", Module: "github.com/sigstore/rekor-tiles/v2", Version: "v2.3.0",
			Packages: []string{"github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix"}, Binary: "rekor-server-posix",
		}},
		{name: TSA, binary: "timestamp-server", Program: asset.Program{
			Name: "timestamp-server", Module: "github.com/sigstore/timestamp-authority/v2", Version: "v2.1.3",
			Packages: []string{"github.com/sigstore/timestamp-authority/v2/cmd/timestamp-server"}, Binary: "timestamp-server",
		}},
		{name: MinIO, binary: "minio", Program: asset.Program{
			Name: "minio", Module: "github.com/minio/minio", Version: "v0.0.0-20260212201848-7aac2a2c5b7c",
			Packages: []string{"github.com/minio/minio"}, Binary: "minio",
		}},
		{name: MC, binary: "mc", Program: asset.Program{
			Name: "mc", Module: "github.com/minio/mc", Version: "v0.0.0-20250313080218-cf909e1063a9",
			Packages: []string{"github.com/minio/mc"}, Binary: "mc",
		}},
	}, nil
}

// Binaries builds what is not there yet and returns the path of each binary by name. The first build takes
// about six minutes on two cores.
func Binaries(ctx context.Context) (map[string]string, error) {
	list, err := programs()
	if err != nil {
		return nil, err
	}
	paths := make(map[string]string, len(list))
	for _, p := range list {
		dir, err := p.Build(ctx)
		if err != nil {
			return nil, err
		}
		paths[p.name] = filepath.Join(dir, p.binary)
	}
	return paths, nil
}

// moduleFolder is the folder of the servers that are ours, hack/servers of the checkout this file was compiled from.
func moduleFolder() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(file) {
		return "", fmt.Errorf("find hack/servers: built with -trimpath, run it with `go run`")
	}
	return filepath.Join(filepath.Dir(file), "..", "..", "servers"), nil
}
