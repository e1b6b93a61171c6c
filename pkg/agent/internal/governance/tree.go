package governance

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/netpol"
)

// MaxInherited limits the policies of a namespace that namespaces below it inherit. Each takes a NetworkPolicy in each of
// them, and a tenant may have thousands of ConfigMaps. The first policies by name count.
const MaxInherited = 20

// tree has the parents of the namespaces, and the inheritable policies.
type tree struct {
	parentOf map[string]string          // by namespace; absent without a parent
	children map[string]map[string]bool // by namespace
	policies map[string]map[string]bool // names of inheritable policies, by namespace
}

func newTree() tree {
	return tree{parentOf: make(map[string]string), children: make(map[string]map[string]bool), policies: make(map[string]map[string]bool)}
}

// setParent records the parent of a namespace; an empty parent means none.
func (t tree) setParent(namespace, parent string) {
	if previous, ok := t.parentOf[namespace]; ok {
		delete(t.children[previous], namespace)
		if len(t.children[previous]) == 0 {
			delete(t.children, previous)
		}
	}
	delete(t.parentOf, namespace)
	if parent == "" {
		return
	}
	t.parentOf[namespace] = parent
	if t.children[parent] == nil {
		t.children[parent] = make(map[string]bool, 1)
	}
	t.children[parent][namespace] = true
}

// ancestors returns the namespaces above a namespace, the nearest first. A namespace in a cycle, or below one, has none.
func (t tree) ancestors(namespace string) (ancestors []string, isCycle bool) {
	seen := map[string]bool{namespace: true}
	for parent, ok := t.parentOf[namespace]; ok; parent, ok = t.parentOf[parent] {
		if seen[parent] {
			return nil, true
		}
		seen[parent] = true
		ancestors = append(ancestors, parent)
	}
	return ancestors, false
}

// inheritable returns the sorted names of the policies that namespaces below a namespace inherit.
func (t tree) inheritable(namespace string) []string {
	names := slices.Sorted(maps.Keys(t.policies[namespace]))
	return names[:min(len(names), MaxInherited)]
}

// below returns the namespaces below a namespace at any depth, sorted.
func (t tree) below(namespace string) []string {
	seen := map[string]bool{namespace: true}
	var below []string
	for queue := []string{namespace}; len(queue) > 0; queue = queue[1:] {
		for child := range t.children[queue[0]] {
			if !seen[child] {
				seen[child] = true
				below = append(below, child)
				queue = append(queue, child)
			}
		}
	}
	slices.Sort(below)
	return below
}

// inheritedName returns the name of the NetworkPolicies that namespaces inherit from a policy.
func inheritedName(namespace, name string) string {
	return netpol.NetworkPolicyName(netpol.InheritedPrefix + namespace + "." + name)
}

// inherited returns the keys of the NetworkPolicies that a namespace inherits. The caller holds the lock.
func (g *Governance) inherited(namespace string) []cache.ObjectName {
	if netpol.IsExempt(namespace, g.agentNamespace) {
		return nil
	}
	ancestors, _ := g.tree.ancestors(namespace)
	var keys []cache.ObjectName
	for _, ancestor := range ancestors {
		for _, name := range g.tree.inheritable(ancestor) {
			keys = append(keys, cache.NewObjectName(namespace, inheritedName(ancestor, name)))
		}
	}
	return keys
}

// InheritedKeys returns the keys of the NetworkPolicies that a namespace inherits.
func (g *Governance) InheritedKeys(namespace string) []cache.ObjectName {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inherited(namespace)
}

// changeParent records the parent of a namespace. It returns the keys that the namespace and those below it inherited
// before or inherit now. The caller holds the lock.
func (g *Governance) changeParent(namespace, parent string) []cache.ObjectName {
	if g.tree.parentOf[namespace] == parent {
		return nil
	}
	var keys []cache.ObjectName
	affected := append(g.tree.below(namespace), namespace)
	collect := func() {
		for _, changed := range affected {
			keys = append(keys, g.inherited(changed)...)
		}
	}
	collect()
	g.tree.setParent(namespace, parent)
	affected = append(g.tree.below(namespace), namespace) // a cycle may have ended
	collect()
	return keys
}

// PolicyChanged records whether a policy is inheritable. It returns the keys of the NetworkPolicies that come from the
// policy.
func (g *Governance) PolicyChanged(namespace, name string, isInheritable bool) []cache.ObjectName {
	g.mu.Lock()
	defer g.mu.Unlock()
	wasInheritable, before := g.tree.policies[namespace][name], g.tree.inheritable(namespace)
	switch {
	case !isInheritable && !wasInheritable:
		return nil
	case isInheritable && g.tree.policies[namespace] == nil:
		g.tree.policies[namespace] = map[string]bool{name: true}
	case isInheritable:
		g.tree.policies[namespace][name] = true
	default:
		delete(g.tree.policies[namespace], name)
		if len(g.tree.policies[namespace]) == 0 {
			delete(g.tree.policies, namespace)
		}
	}
	names := []string{name}
	if isInheritable != wasInheritable { // another policy may come within the limit, or fall out of it
		names = append(names, before...)
		names = append(names, g.tree.inheritable(namespace)...)
		slices.Sort(names)
		names = slices.Compact(names)
	}
	var keys []cache.ObjectName
	for _, below := range g.tree.below(namespace) {
		if ancestors, _ := g.tree.ancestors(below); !slices.Contains(ancestors, namespace) || netpol.IsExempt(below, g.agentNamespace) {
			continue
		}
		for _, name := range names {
			keys = append(keys, cache.NewObjectName(below, inheritedName(namespace, name)))
		}
	}
	return keys
}

// Inherited returns the key of the policy that the NetworkPolicy with this key comes from; ok is false if the namespace
// inherits no such policy.
func (g *Governance) Inherited(key cache.ObjectName) (policy cache.ObjectName, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if netpol.IsExempt(key.Namespace, g.agentNamespace) {
		return policy, false
	}
	ancestors, _ := g.tree.ancestors(key.Namespace)
	for _, ancestor := range ancestors {
		for _, name := range g.tree.inheritable(ancestor) {
			if inheritedName(ancestor, name) == key.Name {
				return cache.NewObjectName(ancestor, name), true
			}
		}
	}
	return policy, false
}

// IsInheritable reports whether a policy has the annotation, also beyond MaxInherited.
func (g *Governance) IsInheritable(policy cache.ObjectName) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tree.policies[policy.Namespace][policy.Name]
}

// ExceedsInherited reports whether a policy has the annotation, but is beyond MaxInherited.
func (g *Governance) ExceedsInherited(policy cache.ObjectName) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tree.policies[policy.Namespace][policy.Name] && !slices.Contains(g.tree.inheritable(policy.Namespace), policy.Name)
}

// Cycles returns the sorted namespaces that are in a cycle of parents, or below one. They inherit nothing.
func (g *Governance) Cycles() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var cycles []string
	for namespace := range g.tree.parentOf {
		if _, isCycle := g.tree.ancestors(namespace); isCycle {
			cycles = append(cycles, namespace)
		}
	}
	slices.Sort(cycles)
	return cycles
}

// InheritedConfigMap returns a policy as a policy ConfigMap of a namespace that inherits it. The result exists only in
// memory.
func InheritedConfigMap(key cache.ObjectName, policy *corev1.ConfigMap) *Source {
	configMap := policy.DeepCopy()
	configMap.Namespace, configMap.Name = key.Namespace, netpol.InheritedPrefix+policy.Namespace+"."+policy.Name
	return &Source{configMap, netpol.Origin{Kind: netpol.Inherited, Source: policy.Namespace + "/" + policy.Name}, policy}
}
