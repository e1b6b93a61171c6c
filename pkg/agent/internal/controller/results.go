package controller

import (
	"context"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/agent/internal/cached"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/status"
)

// results keeps what a report says about each policy of a tenant, from its last sync. Without reports it keeps nothing.
type results struct {
	isOn bool

	mu          sync.Mutex
	byNamespace map[string]map[string][]status.Result // by the name of the NetworkPolicy
	leaks       map[cache.ObjectName]leak             // of NetworkPolicies that the agent did not make
}

// leak is the result for one version of a NetworkPolicy.
type leak struct {
	resourceVersion string
	result          status.Result
	isLeak          bool
}

func newResults(isOn bool) *results {
	return &results{isOn: isOn, byNamespace: make(map[string]map[string][]status.Result), leaks: make(map[cache.ObjectName]leak)}
}

// set sets the results of a policy; nil means that it is gone.
func (r *results) set(key cache.ObjectName, found []status.Result) {
	if !r.isOn {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if found == nil {
		delete(r.byNamespace[key.Namespace], key.Name)
		if len(r.byNamespace[key.Namespace]) == 0 {
			delete(r.byNamespace, key.Namespace)
		}
		return
	}
	if r.byNamespace[key.Namespace] == nil {
		r.byNamespace[key.Namespace] = make(map[string][]status.Result)
	}
	r.byNamespace[key.Namespace][key.Name] = found
}

// of returns the results of the policies with these keys, sorted by their names. ok is false if one has not been synced.
func (r *results) of(namespace string, keys []cache.ObjectName) (all []status.Result, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(keys, func(a, b cache.ObjectName) int { return strings.Compare(a.Name, b.Name) })
	for _, key := range slices.Compact(keys) {
		found, isKnown := r.byNamespace[namespace][key.Name]
		if !isKnown {
			return nil, false
		}
		all = append(all, found...)
	}
	return all, true
}

// Report returns the report of a namespace; nil if it has no policies. ok is false if a policy has not been synced yet.
// Report is for Options.Reports.
func (c *Controller) Report(ctx context.Context, namespace string) (report *status.OpenReport, ok bool, err error) {
	keys := c.policyKeysIn(namespace)
	var reserved []status.Result
	for _, key := range keys {
		if netpol.IsReserved(key.Name) {
			reserved = append(reserved, status.Result{Policy: key.Name, Rule: status.RuleApplied, Outcome: status.Fail, Severity: status.High,
				Message: "NameConflict: names that begin so are the platform's; rename the ConfigMap"})
		}
	}
	keys = slices.DeleteFunc(keys, func(key cache.ObjectName) bool { return netpol.IsReserved(key.Name) })
	if len(keys)+len(reserved) == 0 || netpol.IsExempt(namespace, c.options.Namespace) {
		return nil, true, nil
	}
	all, ok := c.results.of(namespace, keys)
	if !ok {
		return nil, false, nil
	}
	leaks, err := c.leaksIn(ctx, namespace)
	if err != nil {
		return nil, false, err
	}
	made := status.NewOpenReport(namespace, slices.Concat(all, reserved, leaks))
	return &made, true, nil
}

// leaksIn returns the results for the NetworkPolicies of a namespace that the agent did not make, sorted by name. It reads
// each version of such a NetworkPolicy once.
func (c *Controller) leaksIn(ctx context.Context, namespace string) ([]status.Result, error) {
	objects, err := c.caches.networkPolicies.ByIndex(cache.NamespaceIndex, namespace)
	if err != nil {
		return nil, err
	}
	var found []status.Result
	for _, object := range objects {
		reduced, isPolicy := object.(*cached.NetworkPolicy)
		if !isPolicy {
			continue
		}
		current, _ := reduced.Current()
		if netpol.IsMade(current.ObjectMeta) {
			continue
		}
		key := cache.NewObjectName(namespace, current.Name)
		l, err := c.leakOf(ctx, key, current.ResourceVersion)
		if err != nil {
			return nil, err
		}
		if l.isLeak {
			found = append(found, l.result)
		}
	}
	slices.SortFunc(found, func(a, b status.Result) int { return strings.Compare(a.Policy, b.Policy) })
	return found, nil
}

func (c *Controller) leakOf(ctx context.Context, key cache.ObjectName, resourceVersion string) (leak, error) {
	c.results.mu.Lock()
	known, isKnown := c.results.leaks[key]
	c.results.mu.Unlock()
	if isKnown && known.resourceVersion == resourceVersion {
		return known, nil
	}
	full, err := c.api.client.NetworkingV1().NetworkPolicies(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return leak{}, nil
	}
	if err != nil {
		return leak{}, err
	}
	l := leak{resourceVersion: full.ResourceVersion}
	l.result, l.isLeak = status.Leak(full)
	c.results.mu.Lock()
	defer c.results.mu.Unlock()
	c.results.leaks[key] = l
	return l, nil
}

// forgetLeak forgets a NetworkPolicy that is gone.
func (c *Controller) forgetLeak(key cache.ObjectName) {
	if c.results.isOn {
		c.results.mu.Lock()
		defer c.results.mu.Unlock()
		delete(c.results.leaks, key)
	}
}
