package servers

import (
	"context"
	"path/filepath"

	"ugallu.io/forensics/hack/internal/asset"
)

// Names of the servers: of their binaries, images, Services and Deployments.
const (
	Fulcio  = "fulcio"
	MinIO   = "minio"
	Rekor   = "rekor"
	TSA     = "tsa"
	Transit = "transit"
)

// program says how one binary is made.
type program struct {
	name string
	asset.Program
}

// path builds the binary when it is not there.
func (p program) path(ctx context.Context) (string, error) {
	dir, err := p.Build(ctx)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, p.Binary), nil
}

// programs lists the servers, each at the newest version that builds with this module's Go release.
func programs(ctx context.Context) ([]program, error) {
	root, err := asset.Checkout(ctx)
	if err != nil {
		return nil, err
	}
	return []program{
		{Transit, asset.Program{
			Name: "transit", Source: filepath.Join(root, "hack", "servers", "transit"), Packages: []string{"."}, Binary: "transit",
		}},
		{Rekor, asset.Program{
			Name: "rekor", Module: "github.com/sigstore/rekor-tiles/v2", Version: "v2.3.0",
			Packages: []string{"github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix"}, Binary: "rekor-server-posix",
		}},
		{TSA, asset.Program{
			Name: "timestamp-server", Module: "github.com/sigstore/timestamp-authority/v2", Version: "v2.1.3",
			Packages: []string{"github.com/sigstore/timestamp-authority/v2/cmd/timestamp-server"}, Binary: "timestamp-server",
		}},
		{Fulcio, asset.Program{
			Name: "fulcio", Module: "github.com/sigstore/fulcio", Version: "v1.8.8",
			Packages: []string{"github.com/sigstore/fulcio"}, Binary: "fulcio",
		}},
		{MinIO, asset.Program{
			Name: "minio", Module: "github.com/minio/minio", Version: "v0.0.0-20260212201848-7aac2a2c5b7c",
			Packages: []string{"github.com/minio/minio"}, Binary: "minio",
		}},
	}, nil
}

// storeClient is MinIO's command-line client, which alone can make the store's users; it runs on this machine.
func storeClient() program {
	return program{"mc", asset.Program{
		Name: "mc", Module: "github.com/minio/mc", Version: "v0.0.0-20250313080218-cf909e1063a9",
		Packages: []string{"github.com/minio/mc"}, Binary: "mc",
	}}
}

// secondStore is another store with Object Lock, which the tests of ours run on as well.
func secondStore() program {
	return program{"versitygw", asset.Program{
		Name: "versitygw", Module: "github.com/versity/versitygw", Version: "v1.8.0",
		Packages: []string{"github.com/versity/versitygw/cmd/versitygw"}, Binary: "versitygw",
	}}
}

// secondOpinion verifies Sigstore bundles and shares no code of ours; docs/verify-by-hand.md calls it.
func secondOpinion() program {
	return program{"cosign", asset.Program{
		Name: "cosign", Module: "github.com/sigstore/cosign/v3", Version: "v3.1.3",
		Packages: []string{"github.com/sigstore/cosign/v3/cmd/cosign"}, Binary: "cosign",
	}}
}

// TestBinaries are those of Binaries and what only tests start.
func TestBinaries(ctx context.Context) (map[string]string, error) {
	paths, err := Binaries(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range []program{secondStore(), secondOpinion()} {
		if paths[p.name], err = p.path(ctx); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// Binaries builds what is not there yet and returns the path of each server's binary by its name. The first build
// takes about six minutes on two free cores.
func Binaries(ctx context.Context) (map[string]string, error) {
	list, err := programs(ctx)
	if err != nil {
		return nil, err
	}
	paths := make(map[string]string, len(list))
	for _, p := range list {
		if paths[p.name], err = p.path(ctx); err != nil {
			return nil, err
		}
	}
	return paths, nil
}
