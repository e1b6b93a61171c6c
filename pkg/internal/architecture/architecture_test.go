// Package architecture tests which package imports which.
package architecture

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// row is a package and its allowed imports besides the standard library. Test files may import anything.
type row struct {
	folder  string // from the root of the module
	imports []string
	// pure packages take values and return values: they have no context, log, file or connection.
	pure bool
}

// table has the packages from the bottom to the top. A package may import only packages of earlier rows, so there are
// no cycles. A path that is not a folder of this module allows every package under it.
//
// Admission and cmd/egress-webhook never import client-go: the webhook needs no access to the API server.
var table = []row{
	{folder: "pkg/internal/architecture"},
	{folder: "pkg/internal/filewatch"},
	{folder: "pkg/internal/liveheap"},
	{folder: "pkg/internal/nearest", pure: true},
	{folder: "pkg/internal/prefixtest", pure: true},
	{folder: "pkg/internal/prefixes", pure: true},
	{folder: "pkg/internal/slimlist", imports: []string{"k8s.io/apimachinery", "k8s.io/client-go"}},

	{folder: "pkg/internal/document", pure: true, imports: []string{"pkg/internal/nearest"}},

	{folder: "pkg/policy", pure: true, imports: []string{"pkg/internal/document", "pkg/internal/nearest", "pkg/internal/prefixes", "k8s.io/apimachinery", "sigs.k8s.io/json"}},
	{folder: "pkg/platform", pure: true, imports: []string{"pkg/internal/document", "pkg/policy", "k8s.io/apimachinery"}},
	{folder: "pkg/awsranges", imports: []string{"pkg/internal/nearest", "pkg/internal/prefixes"}},
	{folder: "pkg/internal/policytest", pure: true, imports: []string{"pkg/policy", "pkg/awsranges", "pkg/internal/prefixes", "k8s.io/api", "k8s.io/apimachinery"}},
	{folder: "pkg/netpol", pure: true, imports: []string{"pkg/policy", "pkg/platform", "pkg/awsranges", "pkg/internal/nearest", "pkg/internal/prefixes",
		"k8s.io/api", "k8s.io/apimachinery"}},
	{folder: "pkg/audit", imports: []string{"pkg/policy", "pkg/netpol", "pkg/internal/prefixes", "k8s.io/api", "k8s.io/apimachinery"}},
	{folder: "pkg/serviceentry", pure: true, imports: []string{"pkg/netpol", "k8s.io/api", "k8s.io/apimachinery"}},
	{folder: "pkg/domains", pure: true, imports: []string{"pkg/netpol", "pkg/policy", "k8s.io/api", "k8s.io/apimachinery"}},
	{folder: "pkg/analysis", pure: true, imports: []string{"pkg/policy", "pkg/platform", "pkg/awsranges", "pkg/internal/prefixes", "pkg/netpol"}},
	{folder: "pkg/analysis/flows", pure: true, imports: []string{"pkg/policy", "k8s.io/api", "k8s.io/apimachinery"}},
	{folder: "pkg/analysis/traffic", pure: true, imports: []string{"pkg/analysis/flows", "pkg/policy", "pkg/awsranges", "pkg/netpol", "k8s.io/api", "k8s.io/apimachinery"}},
	{folder: "pkg/analysis/recommend", pure: true, imports: []string{"pkg/analysis/flows", "pkg/policy", "pkg/awsranges", "pkg/netpol", "k8s.io/apimachinery"}},
	{folder: "pkg/status", imports: []string{"pkg/policy", "pkg/platform", "pkg/awsranges", "pkg/netpol", "pkg/analysis/flows", "pkg/analysis/traffic", "k8s.io/api", "k8s.io/apimachinery"}},

	{folder: "pkg/agent/internal/testobjects", imports: []string{"pkg/policy", "pkg/awsranges", "pkg/netpol", "k8s.io/api", "k8s.io/apimachinery",
		"github.com/stretchr/testify"}},
	{folder: "pkg/agent/internal/cached", imports: []string{"pkg/policy", "pkg/netpol", "k8s.io/api", "k8s.io/apimachinery"}},
	{folder: "pkg/agent/internal/ledger", imports: []string{"pkg/policy", "pkg/netpol", "k8s.io/api", "k8s.io/apimachinery"}},
	{folder: "pkg/agent/internal/tracker", imports: []string{"pkg/policy", "pkg/awsranges", "pkg/netpol", "k8s.io/apimachinery", "k8s.io/client-go"}},
	{folder: "pkg/agent/internal/plan", pure: true, imports: []string{"pkg/policy", "pkg/awsranges", "pkg/netpol",
		"k8s.io/api", "k8s.io/apimachinery"}},
	{folder: "pkg/agent/internal/governance", pure: true, imports: []string{"pkg/platform", "pkg/policy", "pkg/awsranges", "pkg/netpol",
		"k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go"}},
	{folder: "pkg/agent/internal/rollout", imports: []string{"pkg/awsranges", "k8s.io/client-go"}},
	{folder: "pkg/agent/internal/clock"},
	{folder: "pkg/agent/internal/apiserver", pure: true, imports: []string{"k8s.io/api"}},
	{folder: "pkg/agent/internal/fairqueue", imports: []string{"k8s.io/client-go", "github.com/prometheus/client_golang"}},
	{folder: "pkg/agent/internal/events", imports: []string{"k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go", "github.com/prometheus/client_golang"}},
	{folder: "pkg/agent/internal/reporter", imports: []string{"pkg/awsranges", "pkg/netpol", "k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go",
		"github.com/prometheus/client_golang"}},
	{folder: "pkg/agent/internal/ranges", imports: []string{"pkg/agent/internal/reporter", "pkg/awsranges", "pkg/netpol", "pkg/internal/filewatch",
		"k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go", "github.com/prometheus/client_golang"}},
	{folder: "pkg/agent/internal/companions", imports: []string{"pkg/domains", "pkg/netpol", "pkg/serviceentry", "pkg/status", "k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go",
		"github.com/prometheus/client_golang"}},
	{folder: "pkg/agent/internal/controller", imports: []string{"pkg/audit", "pkg/status", "pkg/agent/internal/cached", "pkg/agent/internal/clock", "pkg/agent/internal/apiserver", "pkg/agent/internal/governance", "pkg/platform", "pkg/agent/internal/ledger", "pkg/agent/internal/tracker",
		"pkg/agent/internal/plan", "pkg/agent/internal/rollout", "pkg/agent/internal/fairqueue", "pkg/agent/internal/reporter", "pkg/internal/slimlist",
		"pkg/policy", "pkg/awsranges", "pkg/netpol", "k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go"}},
	{folder: "pkg/agent", imports: []string{"pkg/agent/internal/companions", "pkg/audit", "pkg/agent/internal/controller", "pkg/agent/internal/events", "pkg/agent/internal/fairqueue", "pkg/agent/internal/plan",
		"pkg/agent/internal/ranges", "pkg/agent/internal/reporter", "pkg/netpol", "k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go",
		"github.com/prometheus/client_golang"}},
	{folder: "pkg/mirror", imports: []string{"pkg/policy", "pkg/netpol", "pkg/internal/filewatch", "pkg/internal/slimlist", "k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go",
		"github.com/prometheus/client_golang"}},
	{folder: "pkg/admission", imports: []string{"pkg/policy", "pkg/platform", "pkg/awsranges", "pkg/netpol", "pkg/audit", "pkg/internal/filewatch",
		"k8s.io/api", "k8s.io/apimachinery", "sigs.k8s.io/json", "github.com/prometheus/client_golang"}},

	{folder: "cmd/internal/cli", imports: []string{"pkg/policy", "pkg/platform", "pkg/awsranges", "pkg/netpol",
		"k8s.io/api", "k8s.io/apimachinery", "github.com/prometheus/client_golang", "github.com/prometheus/common", "gopkg.in/yaml.v3"}},
	{folder: "cmd/egress-agent/internal/page", imports: []string{"cmd/internal/cli", "pkg/policy", "pkg/awsranges", "pkg/netpol", "pkg/status",
		"k8s.io/api", "k8s.io/apimachinery", "golang.org/x/net"}},
	{folder: "cmd/egress-agent", imports: []string{"cmd/egress-agent/internal/page", "cmd/internal/cli", "pkg/policy", "pkg/platform", "pkg/awsranges", "pkg/netpol", "pkg/analysis", "pkg/analysis/flows", "pkg/analysis/traffic", "pkg/analysis/recommend", "pkg/domains", "pkg/serviceentry", "pkg/status", "pkg/audit", "pkg/agent", "pkg/mirror",
		"k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go", "k8s.io/klog/v2", "golang.org/x/crypto/x509roots/fallback", "golang.org/x/term"}},
	{folder: "cmd/egress-webhook", imports: []string{"cmd/internal/cli", "pkg/policy", "pkg/netpol", "pkg/admission", "pkg/audit",
		"github.com/prometheus/client_golang"}},
}

const (
	module = "egress-agent"
	root   = "../../.."
)

// impure are the packages of the standard library that no pure package imports.
var impure = []string{"context", "log", "log/slog", "net", "net/http", "os"}

func TestImports(t *testing.T) {
	imports := make(map[string][]string)
	for _, top := range []string{"cmd", "pkg"} {
		require.NoError(t, readImports(top, imports))
	}
	require.Empty(t, check(table, imports))
}

// readImports adds the imports of every package under a folder. The keys are the folders of packages, and so are the
// imports of this module's packages. A test file adds its package without imports.
func readImports(top string, imports map[string][]string) error {
	return filepath.WalkDir(filepath.Join(root, top), func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(file) != ".go" {
			return err
		}
		relative, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		folder := path.Dir(filepath.ToSlash(relative))
		if imports[folder] == nil {
			imports[folder] = []string{}
		}
		if strings.HasSuffix(file, "_test.go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			imports[folder] = append(imports[folder], strings.TrimPrefix(imported, module+"/"))
		}
		return nil
	})
}

// check returns the mistakes of a table, and the imports that it does not allow, or nil.
func check(table []row, imports map[string][]string) []string {
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	var earlier []string
	for _, r := range table {
		for _, allowed := range r.imports {
			if isOwn(allowed) && !slices.Contains(earlier, allowed) {
				add("%s may not import %s: %s has no row above", r.folder, allowed, allowed)
			}
		}
		if slices.Contains(earlier, r.folder) {
			add("%s has two rows", r.folder)
		}
		earlier = append(earlier, r.folder)
		found, exists := imports[r.folder]
		if !exists {
			add("%s has a row but no package: remove the row", r.folder)
		}
		for _, imported := range slices.Compact(slices.Sorted(slices.Values(found))) {
			if !r.allows(imported) {
				add("%s imports %s: its row does not allow this", r.folder, imported)
			}
		}
	}
	for _, folder := range slices.Sorted(maps.Keys(imports)) {
		if !slices.Contains(earlier, folder) {
			add("%s has no row: add a row with its allowed imports", folder)
		}
	}
	return problems
}

func (r row) allows(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	if isStandard := !isOwn(imported) && !strings.Contains(first, "."); isStandard {
		return !r.pure || !slices.Contains(impure, imported)
	}
	return slices.ContainsFunc(r.imports, func(allowed string) bool {
		return imported == allowed || !isOwn(allowed) && strings.HasPrefix(imported, allowed+"/")
	})
}

// isOwn reports whether a path is a folder of this module.
func isOwn(imported string) bool {
	return strings.HasPrefix(imported, "pkg/") || strings.HasPrefix(imported, "cmd/")
}

func TestCheck(t *testing.T) {
	small := []row{{folder: "pkg/low", pure: true}, {folder: "pkg/high", imports: []string{"pkg/low", "k8s.io/api"}}}
	for _, test := range []struct {
		name    string
		table   []row
		imports map[string][]string
		want    []string
	}{
		{"only allowed imports", small, map[string][]string{"pkg/low": {"net/netip"}, "pkg/high": {"pkg/low", "k8s.io/api/core/v1", "os", "os"}}, nil},
		{"an import that points up", small, map[string][]string{"pkg/low": {"pkg/high"}, "pkg/high": nil},
			[]string{"pkg/low imports pkg/high: its row does not allow this"}},
		{"a row that points up", []row{{folder: "pkg/low", imports: []string{"pkg/high"}}, {folder: "pkg/high"}}, map[string][]string{"pkg/low": nil, "pkg/high": nil},
			[]string{"pkg/low may not import pkg/high: pkg/high has no row above"}},
		{"a package without a row", small, map[string][]string{"pkg/low": nil, "pkg/high": nil, "pkg/new": nil},
			[]string{"pkg/new has no row: add a row with its allowed imports"}},
		{"a row without a package", small, map[string][]string{"pkg/low": nil},
			[]string{"pkg/high has a row but no package: remove the row"}},
		{"two rows", append(small, row{folder: "pkg/low"}), map[string][]string{"pkg/low": nil, "pkg/high": nil}, []string{"pkg/low has two rows"}},
		{"another module", small, map[string][]string{"pkg/low": nil, "pkg/high": {"k8s.io/api", "k8s.io/apimachinery/pkg/types"}},
			[]string{"pkg/high imports k8s.io/apimachinery/pkg/types: its row does not allow this"}},
		{"a folder inside an allowed one", small, map[string][]string{"pkg/low": nil, "pkg/high": {"pkg/low/inner"}},
			[]string{"pkg/high imports pkg/low/inner: its row does not allow this"}},
		{"a file in a pure package", small, map[string][]string{"pkg/low": {"os"}, "pkg/high": nil},
			[]string{"pkg/low imports os: its row does not allow this"}},
	} {
		t.Run(test.name, func(t *testing.T) { require.Equal(t, test.want, check(test.table, test.imports)) })
	}
}
