// Package governance knows the platform documents and the labels of the namespaces, and so the documents that govern
// each namespace. It is pure: callers report changes, and act on the results.
package governance

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

// Governance has the platform documents and the namespaces. It is safe for concurrent use.
type Governance struct {
	agentNamespace string
	options        netpol.Options
	parentLabels   []string

	mu         sync.Mutex
	tree       tree
	documents  map[string]*document // by the name of the ConfigMap
	saved      map[string]string    // platform.json that was in force before this process started, by name
	inForce    []netpol.PlatformDocument
	namespaces map[string]labels.Set
	// guardrails has the results of Guardrails. Most namespaces have the same documents, and share their guardrails.
	guardrails map[guardrailsKey]*netpol.Guardrails
}

type guardrailsKey struct {
	names string // of the documents
	table *awsranges.Table
}

// document is a platform ConfigMap.
type document struct {
	configMap *corev1.ConfigMap
	problems  policy.Problems         // of the stored version
	inForce   netpol.PlatformDocument // the last valid version; its Document is nil if no version was ever valid
	text      string                  // platform.json of inForce
}

// New returns a Governance without documents and namespaces. The first of parentLabels that a Namespace has names its
// parent.
func New(agentNamespace string, options netpol.Options, parentLabels []string) *Governance {
	return &Governance{
		agentNamespace: agentNamespace, options: options, parentLabels: parentLabels, tree: newTree(),
		documents: make(map[string]*document), namespaces: make(map[string]labels.Set),
		guardrails: make(map[guardrailsKey]*netpol.Guardrails),
	}
}

// Change lists the effects of a change of a document or a namespace.
type Change struct {
	// Keys are the keys of the NetworkPolicies of the platform that may need a write or a deletion.
	Keys []cache.ObjectName
	// Namespaces are those whose guardrails have changed, sorted.
	Namespaces []string
	// IsNew reports whether the stored document has another text than before.
	IsNew bool
}

// Restore records the documents that were in force before this process started. If the stored version of a document is
// invalid, the saved version is in force.
func (g *Governance) Restore(snapshot platform.Snapshot) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.saved = make(map[string]string, len(snapshot.Documents))
	for name, text := range snapshot.Documents {
		g.saved[name] = string(text)
	}
}

// SetDocument records the stored version of a platform ConfigMap.
func (g *Governance) SetDocument(configMap *corev1.ConfigMap, table *awsranges.Table) Change {
	g.mu.Lock()
	defer g.mu.Unlock()
	d := g.documents[configMap.Name]
	if d == nil {
		d = &document{inForce: netpol.PlatformDocument{Name: configMap.Name}}
		g.documents[configMap.Name] = d
	}
	isNew := d.configMap == nil || d.configMap.UID != configMap.UID || d.configMap.Data[platform.Key] != configMap.Data[platform.Key]
	d.configMap = configMap
	change := g.evaluate(d, table)
	change.IsNew = isNew
	return change
}

// Reevaluate checks each document again, because the table has other names.
func (g *Governance) Reevaluate(table *awsranges.Table) Change {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all Change
	for _, name := range slices.Sorted(maps.Keys(g.documents)) {
		change := g.evaluate(g.documents[name], table)
		all.Keys = append(all.Keys, change.Keys...)
		all.Namespaces = append(all.Namespaces, change.Namespaces...)
	}
	slices.Sort(all.Namespaces)
	all.Namespaces = slices.Compact(all.Namespaces)
	return all
}

// evaluate puts the stored version of d in force if it is valid. Otherwise the version in force stays. The caller holds
// the lock.
func (g *Governance) evaluate(d *document, table *awsranges.Table) Change {
	before := d.inForce
	inputs := netpol.Inputs{Table: table, Options: g.options}
	compiled, _, problems := netpol.CompilePlatform(d.configMap, inputs)
	d.problems = problems
	text := d.configMap.Data[platform.Key]
	if problems != nil && before.Document == nil {
		saved := *d.configMap
		if savedText, ok := g.saved[d.configMap.Name]; ok {
			text = savedText
			saved.Data = map[string]string{platform.Key: savedText}
			compiled, _, problems = netpol.CompilePlatform(&saved, inputs)
		}
	}
	if problems == nil {
		d.inForce, d.text = compiled, text
	}
	return g.changed(before, d.inForce)
}

// RemoveDocument records that a platform ConfigMap is gone.
func (g *Governance) RemoveDocument(name string) Change {
	g.mu.Lock()
	defer g.mu.Unlock()
	d := g.documents[name]
	if d == nil {
		return Change{}
	}
	delete(g.documents, name)
	delete(g.saved, name)
	return g.changed(d.inForce, netpol.PlatformDocument{Name: name})
}

// changed updates what depends on the documents in force, and returns the change from one version of a document to
// another. The Document of both may be nil. The caller holds the lock.
func (g *Governance) changed(before, after netpol.PlatformDocument) Change {
	if before.Document == after.Document {
		return Change{}
	}
	g.inForce = nil
	for _, name := range slices.Sorted(maps.Keys(g.documents)) {
		if d := g.documents[name]; d.inForce.Document != nil {
			g.inForce = append(g.inForce, d.inForce)
		}
	}
	clear(g.guardrails)
	sameBase := before.Document != nil && after.Document != nil && before.BaseDocument == after.BaseDocument
	sameGuardrails := reflect.DeepEqual(guardrailsOf(before), guardrailsOf(after))
	key := baseName(after.Name)
	var change Change
	for _, namespace := range slices.Sorted(maps.Keys(g.namespaces)) {
		set := g.namespaces[namespace]
		wasGoverned := before.Document != nil && before.Governs(set)
		isGoverned := after.Document != nil && after.Governs(set)
		if (wasGoverned || isGoverned) && !(sameBase && wasGoverned == isGoverned) {
			change.Keys = append(change.Keys, cache.NewObjectName(namespace, key))
		}
		if wasGoverned != isGoverned || isGoverned && !sameGuardrails {
			change.Namespaces = append(change.Namespaces, namespace)
		}
	}
	return change
}

func guardrailsOf(document netpol.PlatformDocument) platform.Guardrails {
	if document.Document == nil {
		return platform.Guardrails{}
	}
	return document.Guardrails
}

// baseName returns the name of the NetworkPolicies of a document's base.
func baseName(document string) string { return netpol.NetworkPolicyName(netpol.BasePrefix + document) }

// SetNamespace records the labels of a namespace.
func (g *Governance) SetNamespace(name string, set labels.Set) Change {
	return g.changeNamespace(name, set, true)
}

// RemoveNamespace records that a namespace is gone.
func (g *Governance) RemoveNamespace(name string) { g.changeNamespace(name, nil, false) }

func (g *Governance) changeNamespace(name string, set labels.Set, exists bool) Change {
	g.mu.Lock()
	defer g.mu.Unlock()
	if netpol.IsExempt(name, g.agentNamespace) {
		return Change{}
	}
	before := g.governing(name)
	if exists {
		g.namespaces[name] = set
	} else {
		delete(g.namespaces, name)
	}
	after := g.governing(name)
	change := Change{Keys: g.changeParent(name, g.parent(set))}
	if namesOf(before) == namesOf(after) {
		return change
	}
	change.Namespaces = []string{name}
	for _, document := range slices.Concat(before, after) {
		if document.Base != nil {
			change.Keys = append(change.Keys, cache.NewObjectName(name, baseName(document.Name)))
		}
	}
	return change
}

// parent returns the name of a namespace's parent, from its labels; empty if it has none.
func (g *Governance) parent(set labels.Set) string {
	for _, key := range g.parentLabels {
		if parent := set[key]; parent != "" {
			return parent
		}
	}
	return ""
}

// governing returns the documents in force that govern a namespace, sorted by name. The caller holds the lock.
func (g *Governance) governing(namespace string) []netpol.PlatformDocument {
	set, isKnown := g.namespaces[namespace]
	if !isKnown {
		return nil
	}
	var governing []netpol.PlatformDocument
	for _, document := range g.inForce {
		if document.Governs(set) {
			governing = append(governing, document)
		}
	}
	return governing
}

func namesOf(documents []netpol.PlatformDocument) string {
	names := make([]string, len(documents))
	for i, document := range documents {
		names[i] = document.Name
	}
	return strings.Join(names, " ")
}

// Guardrails returns the guardrails of a namespace with this table; nil if it has none.
func (g *Governance) Guardrails(namespace string, table *awsranges.Table) *netpol.Guardrails {
	g.mu.Lock()
	defer g.mu.Unlock()
	documents := g.governing(namespace)
	if len(documents) == 0 {
		return nil
	}
	key := guardrailsKey{namesOf(documents), table}
	guardrails, isKnown := g.guardrails[key]
	if !isKnown {
		guardrails = netpol.NewGuardrails(documents, table, g.options.Family)
		g.guardrails[key] = guardrails
	}
	return guardrails
}

// TablePublished forgets the guardrails of earlier tables. It returns the governed namespaces whose guardrails name one
// of the service-regions, sorted: their addresses may have changed.
func (g *Governance) TablePublished(table *awsranges.Table, changed []awsranges.ServiceRegion) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.guardrails, func(key guardrailsKey, _ *netpol.Guardrails) bool { return key.table != table })
	isChanged := make(map[awsranges.ServiceRegion]bool, len(changed))
	for _, serviceRegion := range changed {
		isChanged[serviceRegion] = true
	}
	affected := slices.DeleteFunc(slices.Clone(g.inForce), func(document netpol.PlatformDocument) bool {
		return !slices.ContainsFunc(slices.Concat(document.Guardrails.Denied, document.Guardrails.Within), func(d policy.Destination) bool {
			return names(d, isChanged)
		})
	})
	if len(affected) == 0 {
		return nil
	}
	var namespaces []string
	for namespace, set := range g.namespaces {
		if slices.ContainsFunc(affected, func(document netpol.PlatformDocument) bool { return document.Governs(set) }) {
			namespaces = append(namespaces, namespace)
		}
	}
	slices.Sort(namespaces)
	return namespaces
}

// names reports whether a destination names one of the service-regions.
func names(d policy.Destination, isChanged map[awsranges.ServiceRegion]bool) bool {
	if d.Service == "" {
		return false
	}
	service := awsranges.Canonical(d.Service)
	if d.Regions == nil {
		return isChanged[awsranges.ServiceRegion{Service: service}]
	}
	return slices.ContainsFunc(d.Regions, func(region string) bool {
		return isChanged[awsranges.ServiceRegion{Service: service, Region: region}]
	})
}

// Source is the origin of a NetworkPolicy of the platform.
type Source struct {
	// ConfigMap exists only in memory. It has the UID of Stored.
	ConfigMap *corev1.ConfigMap
	Origin    netpol.Origin
	// Stored is the ConfigMap that a person wrote.
	Stored *corev1.ConfigMap
}

// Base returns the source of the NetworkPolicy with this key; nil if no document in force needs such a NetworkPolicy.
func (g *Governance) Base(key cache.ObjectName) *Source {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, document := range g.governing(key.Namespace) {
		if document.Base == nil || baseName(document.Name) != key.Name {
			continue
		}
		stored := g.documents[document.Name].configMap
		configMap := netpol.BaseConfigMap(key.Namespace, document)
		configMap.UID = stored.UID
		return &Source{configMap, netpol.Origin{Kind: netpol.Base, Source: stored.Namespace + "/" + stored.Name}, stored}
	}
	return nil
}

// HasDocument reports whether a platform ConfigMap exists.
func (g *Governance) HasDocument(name string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.documents[name] != nil
}

// HasNoVersion reports whether a platform ConfigMap exists, and this process knows no valid version. An earlier version
// may have been valid, so its NetworkPolicies must stay.
func (g *Governance) HasNoVersion(name string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	d := g.documents[name]
	return d != nil && d.inForce.Document == nil
}

// Keys returns the keys of the NetworkPolicies that the platform needs: of the bases in force, and of what namespaces
// inherit.
func (g *Governance) Keys() []cache.ObjectName {
	g.mu.Lock()
	defer g.mu.Unlock()
	var keys []cache.ObjectName
	for _, namespace := range slices.Sorted(maps.Keys(g.namespaces)) {
		for _, document := range g.governing(namespace) {
			if document.Base != nil {
				keys = append(keys, cache.NewObjectName(namespace, baseName(document.Name)))
			}
		}
		keys = append(keys, g.inherited(namespace)...)
	}
	return keys
}

// Status describes a platform ConfigMap.
type Status struct {
	Stored   *corev1.ConfigMap
	Problems policy.Problems // of the stored version
	// IsInForce reports whether a version of the document is in force.
	IsInForce bool
	// Namespaces is the number of namespaces that the version in force governs.
	Namespaces int
}

// status returns the status of a document. The caller holds the lock.
func (g *Governance) status(d *document) Status {
	status := Status{Stored: d.configMap, Problems: d.problems, IsInForce: d.inForce.Document != nil}
	if status.IsInForce {
		for _, set := range g.namespaces {
			if d.inForce.Governs(set) {
				status.Namespaces++
			}
		}
	}
	return status
}

// Status returns the status of a platform ConfigMap. ok is false if there is none.
func (g *Governance) Status(name string) (status Status, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	d := g.documents[name]
	if d == nil {
		return Status{}, false
	}
	return g.status(d), true
}

// Statuses returns the status of each platform ConfigMap, sorted by name, and the number of namespaces that at least one
// document in force governs.
func (g *Governance) Statuses() (statuses []Status, governed int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(g.documents)) {
		statuses = append(statuses, g.status(g.documents[name]))
	}
	for namespace := range g.namespaces {
		if len(g.governing(namespace)) > 0 {
			governed++
		}
	}
	return statuses, governed
}

// Snapshot returns the documents in force, and the documents of each namespace. Changed is 0.
func (g *Governance) Snapshot() platform.Snapshot {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := platform.Snapshot{Documents: make(map[string]json.RawMessage), Namespaces: make(map[string][]string)}
	for _, document := range g.inForce {
		text, _ := policy.Compact(g.documents[document.Name].text)
		s.Documents[document.Name] = json.RawMessage(text)
	}
	if len(s.Documents) == 0 {
		return s
	}
	for namespace := range g.namespaces {
		names := []string{}
		for _, document := range g.governing(namespace) {
			names = append(names, document.Name)
		}
		s.Namespaces[namespace] = names
	}
	return s
}
