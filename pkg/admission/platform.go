package admission

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/filewatch"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/platform"
)

// maxPlatformFile limits the file of the platform. A ConfigMap has at most a mebibyte.
const maxPlatformFile = 1 << 20

// Platform loads the platform documents for reviews from a file that the agent writes, and reloads it when it changes.
type Platform struct {
	path    string // empty for none
	options netpol.Options
	files   *filewatch.Files
	log     *slog.Logger
	current atomic.Pointer[governance]
}

// governance is the content of one version of the file.
type governance struct {
	snapshot platform.Snapshot

	mu        sync.Mutex
	table     *awsranges.Table // of the results below
	documents map[string]netpol.PlatformDocument
	// guardrails are the results by the names of documents. Most namespaces have the same documents.
	guardrails map[string]*netpol.Guardrails
}

// NewPlatform loads the file at path, a platform.Snapshot. The file may be missing or defective, for example until the
// agent has written it. Reviews then use no guardrails, and the agent still cuts what it applies. If path is empty, there
// are no platform documents.
func NewPlatform(path string, options netpol.Options, log *slog.Logger) *Platform {
	p := &Platform{path: path, options: options, files: filewatch.New(path), log: log}
	p.current.Store(&governance{})
	p.reload()
	return p
}

// Run reloads the file when it changes, until ctx ends.
func (p *Platform) Run(ctx context.Context) { p.files.Follow(ctx, p.reload) }

// ChangedAt returns when the agent made the content of the file, in epoch seconds; 0 without a file. p may be nil.
func (p *Platform) ChangedAt() int64 {
	if p == nil {
		return 0
	}
	return p.current.Load().snapshot.Changed
}

// reload replaces the documents if the file is valid. Otherwise reviews use the previous documents.
func (p *Platform) reload() {
	if p.path == "" {
		return
	}
	snapshot, err := readSnapshot(p.path)
	if errors.Is(err, fs.ErrNotExist) && p.ChangedAt() == 0 {
		return // no document exists yet
	}
	if err != nil {
		p.log.Warn("reload platform documents failed", "error", err)
		return
	}
	p.current.Store(&governance{snapshot: snapshot})
	p.log.Info("platform documents loaded", "documents", len(snapshot.Documents), "namespaces", len(snapshot.Namespaces), "changed", snapshot.Changed)
}

func readSnapshot(path string) (platform.Snapshot, error) {
	file, err := os.Open(path)
	if err != nil {
		return platform.Snapshot{}, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxPlatformFile+1))
	if err != nil {
		return platform.Snapshot{}, err
	}
	if len(data) > maxPlatformFile {
		return platform.Snapshot{}, fmt.Errorf("%s is larger than %d bytes", path, maxPlatformFile)
	}
	return platform.DecodeSnapshot(data)
}

// Guardrails returns the guardrails of a namespace; nil if it has none. Documents for every namespace judge a namespace
// that the agent did not know when it wrote the file. p may be nil.
func (p *Platform) Guardrails(namespace string, table *awsranges.Table) *netpol.Guardrails {
	if p == nil {
		return nil
	}
	g := p.current.Load()
	if len(g.snapshot.Documents) == 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.documents == nil || g.table != table {
		g.compile(table, p.options, p.log)
	}
	key := strings.Join(netpol.GoverningNames(g.snapshot, g.documents, namespace), " ")
	guardrails, isCompiled := g.guardrails[key]
	if !isCompiled {
		guardrails = netpol.NewGuardrails(netpol.GoverningDocuments(g.snapshot, g.documents, namespace), table, p.options.Family)
		g.guardrails[key] = guardrails
	}
	return guardrails
}

// compile parses the documents with the names of a table. The caller holds the lock.
func (g *governance) compile(table *awsranges.Table, options netpol.Options, log *slog.Logger) {
	g.table, g.guardrails = table, make(map[string]*netpol.Guardrails)
	documents, ignored := netpol.SnapshotDocuments(g.snapshot, netpol.Inputs{Table: table, Options: options})
	g.documents = documents
	for name, problems := range ignored {
		log.Warn("platform document ignored", "name", name, "problem", problems.String())
	}
}

// RulesWith returns the rules of reviews with a table, which may be nil. p may be nil.
func (p *Platform) RulesWith(table *awsranges.Table, options netpol.Options) Rules {
	return Rules{Table: table, Options: options, Now: time.Now(), Guardrails: func(namespace string) *netpol.Guardrails {
		return p.Guardrails(namespace, table)
	}}
}
