package layering_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ugallu.io/forensics/hack/layering"
)

const root = "../.."

func graphs(t *testing.T) (real, drawn layering.Graph) {
	t.Helper()
	real, err := layering.Read(root)
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.Open(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := document.Close(); err != nil {
			t.Error(err)
		}
	}()
	drawn, err = layering.Drawn(document)
	if err != nil {
		t.Fatal(err)
	}
	return real, drawn
}

func TestImportsAreAsDrawn(t *testing.T) {
	real, drawn := graphs(t)
	if len(real) < 10 {
		t.Fatalf("only %d packages found: the reader is looking in the wrong place", len(real))
	}
	for _, edge := range real.Missing(drawn) {
		t.Errorf("%s is imported but not drawn in ARCHITECTURE.md", edge)
	}
	for _, edge := range drawn.Missing(real) {
		t.Errorf("%s is drawn in ARCHITECTURE.md but not imported", edge)
	}
}

func TestImportDepthOfBinaries(t *testing.T) {
	real, _ := graphs(t)
	for _, binary := range []string{"controller", "nodeagent", "webhook", "kubectl-forensics"} {
		if len(real[binary]) == 0 {
			t.Errorf("%s imports nothing of ours", binary)
		}
		if depth := real.Depth(binary); depth > 3 {
			t.Errorf("%s: import depth %d, at most 3", binary, depth)
		}
	}
}

func TestNoBinaryImportsWhatIsForTests(t *testing.T) {
	real, _ := graphs(t)
	for _, helper := range []string{"internal/apitest", "internal/custodytest", "internal/rootstest", "internal/testneeds", "internal/verify/verifytest"} {
		if _, is := real[helper]; !is {
			t.Errorf("there is no %s", helper)
		}
		for from, targets := range real {
			isForTests := from == "integration" || strings.HasSuffix(from, "test")
			if targets[helper] && !isForTests {
				t.Errorf("%s imports %s", from, helper)
			}
		}
	}
}

func TestComponentsShareOnlyAPIAndInternal(t *testing.T) {
	real, _ := graphs(t)
	for from, targets := range real {
		component, _, _ := strings.Cut(from, "/")
		for to := range targets {
			allowed := strings.HasPrefix(to, "api/") || strings.HasPrefix(to, "internal/") ||
				strings.HasPrefix(to, component+"/") || to == "manifests" || (component == "nodeagent" && to == "bpf")
			if component != "hack" && !allowed {
				t.Errorf("%s imports %s", from, to)
			}
		}
		if component == "integration" {
			for to := range targets {
				if !strings.HasPrefix(to, "api/") && !strings.HasPrefix(to, "integration/") && to != "manifests" && to != "internal/testneeds" {
					t.Errorf("integration is a black box, but imports %s", to)
				}
			}
		}
	}
}

// tools are the packages without state or effects of their own, and the stages that are built from them.
var tools = map[string][]string{
	"controller/internal/custody": {"controller/internal/attestor"},
	"controller/internal/match":   {"controller/internal/trigger"},
	"controller/internal/repeat":  {"controller/internal/incident/clusterstate", "controller/internal/policy"},
	"nodeagent/internal/archive":  {"nodeagent/internal/capture"},
	"nodeagent/internal/proc": {
		"nodeagent/internal/containers", "nodeagent/internal/drop", "nodeagent/internal/freeze", "nodeagent/internal/podfiles",
		"nodeagent/internal/volatile",
	},
	"nodeagent/internal/upload": {"nodeagent/internal/capture"},
}

func TestStagesDoNotImportStages(t *testing.T) {
	real, _ := graphs(t)
	for from, targets := range real {
		component, _, inside := strings.Cut(from, "/internal/")
		if !inside || component == "hack" {
			continue
		}
		for to := range targets {
			if strings.HasPrefix(to, component+"/internal/") && !slices.Contains(tools[to], from) {
				t.Errorf("stage %s imports stage %s", from, to)
			}
		}
	}
}

func TestReaderSeesANewEdge(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "nodeagent", "internal", "drop")
	if err := os.MkdirAll(folder, 0o750); err != nil {
		t.Fatal(err)
	}
	source := "package drop\n\nimport _ \"ugallu.io/forensics/nodeagent/internal/freeze\"\n"
	if err := os.WriteFile(filepath.Join(folder, "drop.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	real, err := layering.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, drawn := graphs(t)
	missing := real.Missing(drawn)
	if len(missing) != 1 || missing[0] != "nodeagent/internal/drop -> nodeagent/internal/freeze" {
		t.Fatalf("an edge added by hand was reported as %v", missing)
	}
}
