package manifests

import (
	"embed"
	"io/fs"
)

//go:generate go tool -modfile=../hack/tools.mod controller-gen rbac:roleName=ugallu-forensics,fileName=forensics.yaml paths=../controller/internal/trigger paths=../controller/internal/incident/... paths=../controller/internal/policy paths=../controller/internal/config output:rbac:dir=base/rbac
//go:generate go tool -modfile=../hack/tools.mod controller-gen rbac:roleName=ugallu-forensics-snapshot,fileName=snapshot.yaml paths=../controller/internal/readback output:rbac:dir=base/rbac
//go:generate go tool -modfile=../hack/tools.mod controller-gen rbac:roleName=ugallu-attestor,fileName=attestor.yaml paths=../controller/internal/attestor output:rbac:dir=base/rbac
//go:generate go tool -modfile=../hack/tools.mod controller-gen rbac:roleName=ugallu-webhook,fileName=webhook.yaml paths=../webhook/... output:rbac:dir=base/rbac

//go:embed crds/security.ugallu.io_*.yaml
var definitions embed.FS

// Definitions holds one YAML file for each custom resource definition, at its root.
func Definitions() (fs.FS, error) { return fs.Sub(definitions, "crds") }
