package layering

import (
	"bufio"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const module = "ugallu.io/forensics"

// Graph maps each package of the module, by its folder, to the packages of the module that it imports.
type Graph map[string]map[string]bool

// Read parses the imports of every Go file below root, in-process: a `go list` subprocess is cached by `go test` and
// would pass over a new edge. Test files count only for packages that hold nothing else. Nested modules are skipped.
func Read(root string) (Graph, error) {
	graph := Graph{}
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return skipFolder(root, relative)
		}
		if !strings.HasSuffix(relative, ".go") {
			return nil
		}
		return graph.addFile(root, filepath.ToSlash(relative))
	})
	if err != nil {
		return nil, fmt.Errorf("read imports below %s: %w", root, err)
	}
	return graph, nil
}

func skipFolder(root, relative string) error {
	name := filepath.Base(relative)
	if relative == "." {
		return nil
	}
	if strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" {
		return filepath.SkipDir
	}
	if _, err := os.Stat(filepath.Join(root, relative, "go.mod")); err == nil {
		return filepath.SkipDir
	}
	return nil
}

func (g Graph) addFile(root, relative string) error {
	folder := path.Dir(relative)
	if strings.HasSuffix(relative, "_test.go") && folder != "integration" {
		return nil
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, relative), nil, parser.ImportsOnly)
	if err != nil {
		return fmt.Errorf("parse %s: %w", relative, err)
	}
	if g[folder] == nil {
		g[folder] = map[string]bool{}
	}
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return fmt.Errorf("import %s of %s: %w", spec.Path.Value, relative, err)
		}
		if target, ok := strings.CutPrefix(imported, module+"/"); ok {
			g[folder][target] = true
		}
	}
	return nil
}

// Drawn reads the graph from a document: the lines `from -> to to …` of its fenced block named imports.
func Drawn(document io.Reader) (Graph, error) {
	graph := Graph{}
	lines := bufio.NewScanner(document)
	inside, found := false, false
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "```imports":
			inside, found = true, true
		case line == "```":
			inside = false
		case inside && line != "":
			from, to, ok := strings.Cut(line, "->")
			if !ok {
				return nil, fmt.Errorf("line %q is not `from -> to`", line)
			}
			graph.draw(strings.TrimSpace(from), strings.Fields(to))
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the drawn graph: %w", err)
	}
	if !found {
		return nil, fmt.Errorf("no block ```imports in the document")
	}
	return graph, nil
}

func (g Graph) draw(from string, targets []string) {
	if g[from] == nil {
		g[from] = map[string]bool{}
	}
	for _, target := range targets {
		g[from][target] = true
	}
}

// Missing lists the edges of g that other does not have, sorted.
func (g Graph) Missing(other Graph) []string {
	var edges []string
	for from, targets := range g {
		for to := range targets {
			if !other[from][to] {
				edges = append(edges, from+" -> "+to)
			}
		}
	}
	slices.Sort(edges)
	return edges
}

// Depth is the length of the longest chain of imports that starts at a package.
func (g Graph) Depth(from string) int {
	deepest := 0
	for to := range g[from] {
		deepest = max(deepest, 1+g.Depth(to))
	}
	return deepest
}
