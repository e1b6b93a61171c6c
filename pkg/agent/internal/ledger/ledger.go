// Package ledger counts the bytes of policy documents, the CIDRs and the ports of each namespace.
//
// The caches update it with each object, so that a sync of one policy need not read all the others.
package ledger

import (
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// Ledger has an account for each namespace that takes anything. It is safe for concurrent use.
type Ledger struct {
	mu       sync.Mutex
	accounts map[string]*account // by namespace
}

// account counts the usage of one namespace.
type account struct {
	documents documents
	usage     usage
	overLimit map[string]bool // names of the NetworkPolicies whose policies exceed a limit of the namespace
}

// New returns a ledger without accounts.
func New() *Ledger { return &Ledger{accounts: make(map[string]*account)} }

// Size returns how many namespaces have an account.
func (l *Ledger) Size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accounts)
}

// open returns the account of a namespace, and creates it if necessary. The caller holds the lock.
func (l *Ledger) open(namespace string) *account {
	a := l.accounts[namespace]
	if a == nil {
		a = &account{}
		l.accounts[namespace] = a
	}
	return a
}

// closeIfEmpty deletes an account that counts nothing. The caller holds the lock.
func (l *Ledger) closeIfEmpty(namespace string, a *account) {
	if len(a.documents.byName)+len(a.usage.byName)+len(a.overLimit) == 0 {
		delete(l.accounts, namespace)
	}
}

// AddDocument counts the policy document of a ConfigMap: size is the bytes without white space, text the bytes that the
// cache would hold. It reports whether the cache may hold that text.
func (l *Ledger) AddDocument(configMap *corev1.ConfigMap, size, text int) (mayHold bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open(configMap.Namespace).documents.add(configMap.Name,
		document{uid: configMap.UID, created: configMap.CreationTimestamp.Unix(), size: size, text: text})
}

// DropDocument removes the document of the ConfigMap with this UID. It leaves alone a newer ConfigMap with the same
// name.
func (l *Ledger) DropDocument(namespace, name string, uid types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.open(namespace)
	a.documents.drop(name, uid)
	l.closeIfEmpty(namespace, a)
}

// Excess returns the problem of a ConfigMap whose document exceeds MaxBytes together with the older documents of the
// namespace. It returns nil if the document fits.
func (l *Ledger) Excess(namespace, name string) policy.Problems {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.accounts[namespace]; a != nil {
		return a.documents.excess(name)
	}
	return nil
}

// SetUsage counts the usage of a NetworkPolicy of the agent, in place of an earlier count.
func (l *Ledger) SetUsage(namespace, name string, usage netpol.Usage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open(namespace).usage.set(name, usage)
}

// Usage returns the usage of a NetworkPolicy; the zero value for one that is not counted.
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
	a := l.open(namespace)
	a.usage.drop(name)
	l.closeIfEmpty(namespace, a)
}

// Total returns the usage of a namespace if the named NetworkPolicy had the usage own. It is the sum of CIDRs, and the
// number of distinct ports, or math.MaxInt32 if a usage has Many. others are the names of the other NetworkPolicies that open any CIDR, sorted.
func (l *Ledger) Total(namespace, name string, own netpol.Usage) (cidrs, ports int, others []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.accounts[namespace]; a != nil {
		return a.usage.total(name, own)
	}
	return own.CIDRs, len(own.Ports), nil
}

// SetOverLimit records whether the policy of a NetworkPolicy exceeds a limit of the namespace. Such a policy needs
// another sync when the namespace changes.
func (l *Ledger) SetOverLimit(namespace, name string, overLimit bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.open(namespace)
	if overLimit {
		if a.overLimit == nil {
			a.overLimit = make(map[string]bool, 1)
		}
		a.overLimit[name] = true
	} else {
		delete(a.overLimit, name)
	}
	l.closeIfEmpty(namespace, a)
}

// OverLimit returns the NetworkPolicies of a namespace, without the one named except, whose policies exceed a limit.
// The names are sorted.
func (l *Ledger) OverLimit(namespace, except string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.accounts[namespace]
	if a == nil || len(a.overLimit) == 0 {
		return nil
	}
	var names []string
	for name := range a.overLimit {
		if name != except {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
