package replay

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// checker checks each version of each NetworkPolicy when the API server has stored it.
type checker struct {
	mu         sync.Mutex
	policies   map[string]*expected // by NAMESPACE/NAME
	violations []string
	versions   int
}

// expected is what a NetworkPolicy had to open by the document before, and has to open by the current one. Before the
// first document it is nothing.
type expected struct {
	before, after opening

	// The version that is stored.
	stored     networkingv1.NetworkPolicySpec
	open       opening
	isMinimal  bool
	generation int64

	// The version when the current document came, and the writes since.
	settled      networkingv1.NetworkPolicySpec
	existed      bool
	writes, owed int
}

func newChecker() *checker { return &checker{policies: make(map[string]*expected)} }

// owe sets what a NetworkPolicy must open from now on.
func (c *checker) owe(key string, open opening) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.policies[key]
	if e == nil {
		nothing := make(opening, len(points))
		e = &expected{open: nothing, after: nothing}
		c.policies[key] = e
	}
	e.before, e.after = e.after, open
}

// run checks versions until the watch ends.
func (c *checker) run(events <-chan watch.Event) {
	for event := range events {
		policy, ok := event.Object.(*networkingv1.NetworkPolicy)
		c.mu.Lock()
		if ok {
			c.check(event.Type, policy)
		} else {
			c.violations = append(c.violations, fmt.Sprintf("the watch ended: %v", event.Object))
		}
		c.mu.Unlock()
	}
}

func (c *checker) check(kind watch.EventType, policy *networkingv1.NetworkPolicy) {
	key := policy.Namespace + "/" + policy.Name
	fail := func(format string, args ...any) {
		c.violations = append(c.violations, key+" "+fmt.Sprintf(format, args...))
	}
	e := c.policies[key]
	switch {
	case e == nil:
		fail("has no policy")
		return
	case kind == watch.Deleted:
		fail("was deleted")
		return
	case policy.Generation == e.generation:
		return // only metadata
	}
	c.versions++
	e.writes++
	e.generation, e.stored, e.open = policy.Generation, policy.Spec, openingOfSpec(policy.Spec)
	e.isMinimal = isMinimal(policy.Spec)
	// What both documents open is open, and what neither opens is closed, in the steps between, too. So a guardrail that
	// denies an address by both documents closes it in every version.
	port, closed, open := e.open.difference(
		func(i int) spans { return e.before[i].intersect(e.after[i]) },
		func(i int) spans { return e.before[i].union(e.after[i]) })
	if closed != nil {
		fail("does not open %v on port %d, which is open before and after", closed[0], port)
	}
	if open != nil {
		fail("opens %v on port %d, which is closed before and after", open[0], port)
	}
}

// missing returns a NetworkPolicy that does not open what it must, or has more CIDRs than that takes, or "" if there is none.
func (c *checker) missing() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, e := range c.policies {
		if e.generation == 0 {
			return key + " does not exist"
		}
		if !e.open.equal(e.after) {
			port, closed, open := e.open.difference(func(i int) spans { return e.after[i] }, func(i int) spans { return e.after[i] })
			return fmt.Sprintf("%s: on port %d it must also open %v and not %v", key, port, closed, open)
		}
		if !e.isMinimal {
			return key + " has CIDRs that open nothing more" // a union that is to be narrowed
		}
	}
	return ""
}

// settle begins with a new document. It checks again that there was no write that nobody owed for the last one.
func (c *checker) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, e := range c.policies {
		if e.writes != e.owed {
			c.violations = append(c.violations, key+" was written again after it was complete")
		}
		e.existed, e.settled, e.writes, e.owed = true, e.stored, 0, 0
	}
}

// counts checks that the agent has written exactly what it owes since settle. It returns how many NetworkPolicies that
// were, and how many of them it wrote twice, the first time as the union of before and after.
func (c *checker) counts() (written, unions int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(c.policies)) {
		e := c.policies[key]
		e.owed = 0
		switch {
		case !e.existed:
			e.owed = 1 // to create it
		case !e.before.equal(e.after):
			e.owed = writesOwed(e.settled, e.stored)
		}
		written += min(e.owed, 1)
		unions += e.owed / 2
		if e.writes != e.owed {
			c.violations = append(c.violations, fmt.Sprintf("%s was written %d times, and the agent owed %d", key, e.writes, e.owed))
		}
	}
	return written, unions
}

// dnsPeers is how many of chunkPeers the agent reserves for DNS.
const dnsPeers = 16

// writesOwed returns how many writes take a NetworkPolicy from one spec to another: two if it is large, and neither
// spec has all CIDRs of the other with the same ports.
func writesOwed(from, to networkingv1.NetworkPolicySpec) int {
	before, after := keysOf(from), keysOf(to)
	isLarge := max(countCIDRs(from), countCIDRs(to))+dnsPeers > chunkPeers
	if isLarge && hasMore(before, after) && hasMore(after, before) {
		return 2
	}
	return 1
}

func hasMore(a, b map[string]bool) bool {
	for key := range a {
		if !b[key] {
			return true
		}
	}
	return false
}

// keysOf returns each CIDR of a spec with its ports.
func keysOf(spec networkingv1.NetworkPolicySpec) map[string]bool {
	keys := make(map[string]bool)
	for _, rule := range spec.Egress {
		ports, err := json.Marshal(rule.Ports)
		if err != nil {
			panic(err)
		}
		for _, peer := range rule.To {
			if peer.IPBlock != nil {
				keys[peer.IPBlock.CIDR+" "+string(ports)] = true
			}
		}
	}
	return keys
}

// isMinimal reports whether no CIDR of a spec is there twice, is covered by a wider one with its ports, or has a sibling
// with equal ports. The union of two different specs is not minimal if it opens only what one of them opens.
func isMinimal(spec networkingv1.NetworkPolicySpec) bool {
	type portSet struct {
		text string
		mask uint32 // of points
	}
	sets := make(map[netip.Prefix]portSet)
	for _, rule := range spec.Egress {
		text, err := json.Marshal(rule.Ports)
		if err != nil {
			panic(err)
		}
		set := portSet{text: string(text)}
		for i, port := range points {
			if opens(rule.Ports, port) {
				set.mask |= 1 << i
			}
		}
		for _, peer := range rule.To {
			if peer.IPBlock == nil {
				continue
			}
			prefix := netip.MustParsePrefix(peer.IPBlock.CIDR)
			if _, isThere := sets[prefix]; isThere {
				return false
			}
			sets[prefix] = set
		}
	}
	for prefix, set := range sets {
		for bits := prefix.Bits() - 1; bits >= 0; bits-- {
			if wider, isThere := sets[netip.PrefixFrom(prefix.Addr(), bits).Masked()]; isThere && set.mask&^wider.mask == 0 {
				return false
			}
		}
		if prefix.Bits() == 0 {
			continue
		}
		sibling := spanOf(prefix).first ^ uint32(uint64(1)<<(32-prefix.Bits()))
		other, isThere := sets[netip.PrefixFrom(addressOf(sibling), prefix.Bits())]
		if isThere && other.text == set.text {
			return false
		}
	}
	return true
}

func countCIDRs(spec networkingv1.NetworkPolicySpec) int {
	cidrs := make(map[string]bool)
	for _, rule := range spec.Egress {
		for _, peer := range rule.To {
			if peer.IPBlock != nil {
				cidrs[peer.IPBlock.CIDR] = true
			}
		}
	}
	return len(cidrs)
}

func (c *checker) versionCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.versions
}

// require requires that no version was wrong.
func (c *checker) require(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	require.Empty(t, c.violations, "%s", strings.Join(c.violations[:min(5, len(c.violations))], "\n"))
}
