package agent

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

const (
	// maxNamespaceBytes bounds the policies of a namespace, and the text of them that the cache holds: what one namespace
	// costs is about a mebibyte, and a kilobyte for each of its objects.
	maxNamespaceBytes = 1 << 20
	// leastBytes is what a policy counts for at least.
	leastBytes = 256
)

// ledger counts what the policies of each namespace take together, as the caches change, so that no look at one policy
// needs a look at all the others.
type ledger struct {
	mu         sync.Mutex
	namespaces map[string]*account
}

// account is that of one namespace.
type account struct {
	documents map[string]document // by the ConfigMap's name
	bytes     int                 // of all documents
	held      int                 // of those that the cache holds
	over      map[string]bool     // the documents that do not fit, the youngest; nil until it is asked for

	written map[string]netpol.Usage // of the NetworkPolicies that the agent made, by name
	cidrs   int                     // of all of them
	ports   map[netpol.PortKey]int  // how many of them have each

	unfit map[string]bool // the NetworkPolicies, by name, of policies that are too much beside the others
}

type document struct {
	uid     types.UID
	created int64 // epoch seconds
	size    int   // bytes without white space
	held    int
}

// bytes is what the document counts for; nothing for the zero document.
func (d document) bytes() int {
	if d == (document{}) {
		return 0
	}
	return max(d.size, leastBytes)
}

func newLedger() *ledger { return &ledger{namespaces: make(map[string]*account)} }

// open returns the account of a namespace, which it makes if there is none. The lock is held.
func (l *ledger) open(namespace string) *account {
	a := l.namespaces[namespace]
	if a == nil {
		a = &account{}
		l.namespaces[namespace] = a
	}
	return a
}

// close forgets an account with nothing in it.
func (l *ledger) close(namespace string, a *account) {
	if len(a.documents)+len(a.written)+len(a.unfit) == 0 {
		delete(l.namespaces, namespace)
	}
}

// addDocument counts a ConfigMap whose policy has so many bytes without white space, and reports whether the cache may
// hold its text of so many.
func (l *ledger) addDocument(configMap *corev1.ConfigMap, size, text int) (hold bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.open(configMap.Namespace)
	before := a.documents[configMap.Name]
	d := document{uid: configMap.UID, created: configMap.CreationTimestamp.Unix(), size: size, held: text}
	if hold = size <= policy.MaxDocumentBytes && text <= policy.MaxDocumentBytes && a.held-before.held+text <= maxNamespaceBytes; !hold {
		d.held = 0
	}
	if a.documents == nil {
		a.documents = make(map[string]document, 1)
	}
	a.documents[configMap.Name] = d
	a.bytes += d.bytes() - before.bytes()
	a.held += d.held - before.held
	a.over = nil
	return hold
}

// dropDocument forgets a ConfigMap, unless another of its name has come.
func (l *ledger) dropDocument(namespace, name string, uid types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.open(namespace)
	if d, known := a.documents[name]; known && d.uid == uid {
		delete(a.documents, name)
		a.bytes -= d.bytes()
		a.held -= d.held
		a.over = nil
	}
	l.close(namespace, a)
}

// excess returns what keeps a ConfigMap from being judged: with the older ones of its namespace it is over the bound. Nil
// for nothing.
func (l *ledger) excess(namespace, name string) policy.Problems {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.namespaces[namespace]
	if a == nil || a.bytes <= maxNamespaceBytes {
		return nil
	}
	if a.over == nil {
		a.over = a.youngest()
	}
	if !a.over[name] {
		return nil
	}
	return policy.Problems{{Path: policy.Key, Message: fmt.Sprintf(
		"Too many policies: those of the namespace have %d bytes together; at most %d are allowed, and each counts for %d at least: the oldest are in force; remove some",
		a.bytes, maxNamespaceBytes, leastBytes)}}
}

// youngest returns the documents that do not fit beside those that are older.
func (a *account) youngest() map[string]bool {
	names := make([]string, 0, len(a.documents))
	for name := range a.documents {
		names = append(names, name)
	}
	slices.SortFunc(names, func(x, y string) int {
		return cmp.Or(cmp.Compare(a.documents[x].created, a.documents[y].created), strings.Compare(x, y))
	})
	over, total := make(map[string]bool), 0
	for _, name := range names {
		if size := a.documents[name].bytes(); total+size <= maxNamespaceBytes {
			total += size
		} else {
			over[name] = true
		}
	}
	return over
}

// setUsage counts what a NetworkPolicy takes.
func (l *ledger) setUsage(namespace, name string, usage netpol.Usage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.open(namespace)
	a.subtract(name)
	if a.written == nil {
		a.written, a.ports = make(map[string]netpol.Usage, 1), make(map[netpol.PortKey]int, len(usage.Ports))
	}
	a.written[name] = usage
	a.cidrs += usage.CIDRs
	for _, port := range usage.Ports {
		a.ports[port]++
	}
}

// usage returns what a NetworkPolicy takes.
func (l *ledger) usage(namespace, name string) netpol.Usage {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.namespaces[namespace]; a != nil {
		return a.written[name]
	}
	return netpol.Usage{}
}

// dropUsage forgets a NetworkPolicy.
func (l *ledger) dropUsage(namespace, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.open(namespace)
	a.subtract(name)
	delete(a.written, name)
	l.close(namespace, a)
}

func (a *account) subtract(name string) {
	usage := a.written[name]
	a.cidrs -= usage.CIDRs
	for _, port := range usage.Ports {
		if a.ports[port]--; a.ports[port] == 0 {
			delete(a.ports, port)
		}
	}
}

// together returns what a NetworkPolicy of this usage would take with the others of its namespace: CIDRs, added up, and
// distinct ports; and the names of the others that take any, sorted.
func (l *ledger) together(namespace, name string, own netpol.Usage) (cidrs, ports int, others []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.namespaces[namespace]
	if a == nil {
		return own.CIDRs, len(own.Ports), nil
	}
	before := a.written[name]
	cidrs, ports = own.CIDRs+a.cidrs-before.CIDRs, len(a.ports)
	for _, port := range before.Ports {
		if a.ports[port] == 1 && !slices.Contains(own.Ports, port) {
			ports--
		}
	}
	for _, port := range own.Ports {
		if a.ports[port] == 0 {
			ports++
		}
	}
	for other, usage := range a.written {
		if other != name && usage.CIDRs > 0 {
			others = append(others, other)
		}
	}
	slices.Sort(others)
	return cidrs, ports, others
}

// setUnfit notes whether a policy is too much beside the others, and so must be looked at again when these change.
func (l *ledger) setUnfit(namespace, name string, unfit bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.open(namespace)
	if unfit {
		if a.unfit == nil {
			a.unfit = make(map[string]bool, 1)
		}
		a.unfit[name] = true
	} else {
		delete(a.unfit, name)
	}
	l.close(namespace, a)
}

// unfitOf returns those policies of a namespace, but for one, sorted.
func (l *ledger) unfitOf(namespace, but string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.namespaces[namespace]
	if a == nil || len(a.unfit) == 0 {
		return nil
	}
	var names []string
	for name := range a.unfit {
		if name != but {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
