package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
)

// TestExportedNamesHaveComments requires a comment for every package of the product, and for every exported name.
// staticcheck only checks how an existing comment begins.
func TestExportedNamesHaveComments(t *testing.T) {
	packages := make(map[string]bool) // by folder: whether the package has a comment
	names := 0
	for _, folder := range []string{harness.Root + "/pkg", harness.Root + "/cmd"} {
		require.NoError(t, filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, path, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			packages[filepath.Dir(path)] = packages[filepath.Dir(path)] || file.Doc != nil
			for _, declaration := range file.Decls {
				for _, name := range exportedNames(declaration) {
					names++
					if !name.documented {
						t.Errorf("%s: %s has no comment", files.Position(name.Pos()), name.Name)
					}
				}
			}
			return nil
		}))
	}
	require.Greater(t, names, 100)
	for folder, documented := range packages {
		require.True(t, documented, "the package in %s has no comment", folder)
	}
}

type exportedName struct {
	*ast.Ident
	documented bool
}

// exportedNames returns the exported names of a declaration. In a group of constants or variables, one comment counts
// for all.
func exportedNames(declaration ast.Decl) []exportedName {
	var names []exportedName
	add := func(name *ast.Ident, comments ...*ast.CommentGroup) {
		if !name.IsExported() {
			return
		}
		documented := false
		for _, comment := range comments {
			documented = documented || comment != nil
		}
		names = append(names, exportedName{name, documented})
	}
	switch d := declaration.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil || ast.IsExported(receiverType(d.Recv.List[0].Type)) {
			add(d.Name, d.Doc)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				add(spec.Name, d.Doc, spec.Doc, spec.Comment)
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					add(name, d.Doc, spec.Doc, spec.Comment)
				}
			}
		}
	}
	return names
}

// receiverType returns the name of a method's receiver type.
func receiverType(expression ast.Expr) string {
	switch e := expression.(type) {
	case *ast.StarExpr:
		return receiverType(e.X)
	case *ast.IndexExpr:
		return receiverType(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}
