// Package ledger counts the bytes of policy documents, the CIDRs and the ports of each namespace.
//
// The caches update the ledger with each object, so that the sync of a policy need not read all other policies.
package ledger

import (
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// Ledger has an account for each namespace with policies or NetworkPolicies of the agent. It is safe for concurrent
// use.
type Ledger struct {
	mu       sync.Mutex
	accounts map[string]*account // by namespace
}

// account counts the usage of one namespace.
type account struct {
	documents documents
	usage     usage
	overLimit map[string]bool // names of the NetworkPolicies whose policy exceeds a limit of the namespace
}

// New returns a ledger without accounts.
func New() *Ledger { return &Ledger{accounts: make(map[string]*account)} }

// Size returns how many namespaces have an account.
func (l *Ledger) Size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accounts)
}

// getOrCreate returns the account of a namespace. The caller holds the lock.
func (l *Ledger) getOrCreate(namespace string) *account {
	a := l.accounts[namespace]
	if a == nil {
		a = &account{}
		l.accounts[namespace] = a
	}
	return a
}

// deleteIfEmpty deletes an account that counts nothing. The caller holds the lock.
func (l *Ledger) deleteIfEmpty(namespace string, a *account) {
	if len(a.documents.byName)+len(a.usage.byName)+len(a.overLimit) == 0 {
		delete(l.accounts, namespace)
	}
}

// AddDocument counts the policy document of a ConfigMap in place of its previous document. Both sizes are in bytes:
// size is without white space, and cachedSize is that of the text that the cache would hold. mayCache reports whether
// the cache may hold the text.
func (l *Ledger) AddDocument(configMap *corev1.ConfigMap, size, cachedSize int) (mayCache bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.getOrCreate(configMap.Namespace).documents.add(configMap.Name,
		document{uid: configMap.UID, created: configMap.CreationTimestamp.Unix(), size: size, cachedSize: cachedSize})
}

// Names returns the sorted names of the policy ConfigMaps of a namespace.
func (l *Ledger) Names(namespace string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.accounts[namespace]; a != nil {
		return slices.Sorted(maps.Keys(a.documents.byName))
	}
	return nil
}

// DropDocument stops counting the document of the ConfigMap with this UID. It does nothing if a newer ConfigMap has the
// same name.
func (l *Ledger) DropDocument(namespace, name string, uid types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.getOrCreate(namespace)
	a.documents.drop(name, uid)
	l.deleteIfEmpty(namespace, a)
}

// CheckFit returns a problem if the document of a ConfigMap and the older documents of the namespace together exceed
// MaxBytes. It returns nil if the document fits.
func (l *Ledger) CheckFit(namespace, name string) policy.Problems {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.accounts[namespace]; a != nil {
		return a.documents.checkFit(name)
	}
	return nil
}

// SetUsage counts the usage of a NetworkPolicy of the agent, in place of its previous usage.
func (l *Ledger) SetUsage(namespace, name string, usage netpol.Usage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.getOrCreate(namespace).usage.set(name, usage)
}

// Usage returns the usage of a NetworkPolicy; the zero value if the NetworkPolicy is not counted.
func (l *Ledger) Usage(namespace, name string) netpol.Usage {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.accounts[namespace]; a != nil {
		return a.usage.byName[name]
	}
	return netpol.Usage{}
}

// DropUsage stops counting a NetworkPolicy.
func (l *Ledger) DropUsage(namespace, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.getOrCreate(namespace)
	a.usage.drop(name)
	l.deleteIfEmpty(namespace, a)
}

// Total returns what the usage of a namespace would be if the named NetworkPolicy had newUsage. cidrs is the sum of the
// CIDRs. ports is the number of distinct ports, or math.MaxInt32 if some usage has Many. others are the sorted names of
// the other NetworkPolicies that have at least one CIDR.
func (l *Ledger) Total(namespace, name string, newUsage netpol.Usage) (cidrs, ports int, others []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.accounts[namespace]; a != nil {
		return a.usage.total(name, newUsage)
	}
	return newUsage.CIDRs, len(newUsage.Ports), nil
}

// SetOverLimit records whether the policy of a NetworkPolicy exceeds a limit of the namespace. Such a policy needs
// another sync when the namespace changes.
func (l *Ledger) SetOverLimit(namespace, name string, isOverLimit bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.getOrCreate(namespace)
	if isOverLimit {
		if a.overLimit == nil {
			a.overLimit = make(map[string]bool, 1)
		}
		a.overLimit[name] = true
	} else {
		delete(a.overLimit, name)
	}
	l.deleteIfEmpty(namespace, a)
}

// OverLimit returns the sorted names of the NetworkPolicies of a namespace whose policy exceeds a limit. It leaves out
// skippedName.
func (l *Ledger) OverLimit(namespace, skippedName string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.accounts[namespace]
	if a == nil || len(a.overLimit) == 0 {
		return nil
	}
	var names []string
	for name := range a.overLimit {
		if name != skippedName {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
