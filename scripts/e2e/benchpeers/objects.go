package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/scripts/e2e/cluster"
)

const (
	clients         = 16  // that create ConfigMaps at a time
	namespaceCount  = 100 // of each kind
	managedSelector = "egress-controller=managed"

	// badPolicy has a prefix length that no address has. Each check of a peer must find it.
	badPolicy = `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/33", "ports": [5432]}]}`
)

// A kind of namespaces has the label bench=KIND. Each admission check applies to one kind only, so that all checks can
// be configured at once.
const (
	kindNone    = "none" // no admission check
	kindBare    = "bare"
	kindThis    = "this"
	kindCEL     = "cel"
	kindKyverno = "kyverno"
)

var kinds = []string{kindNone, kindBare, kindThis, kindCEL, kindKyverno}

func namespace(kind string, i int) string { return fmt.Sprintf("%s-%d", kind, i%namespaceCount) }

func (b *bench) createNamespaces(ctx context.Context) error {
	return cluster.Each(len(kinds)*namespaceCount, func(i int) error {
		kind := kinds[i/namespaceCount]
		labels := map[string]string{"bench": kind}
		if kind == kindThis {
			labels["egress-validation"] = "enabled"
		}
		object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace(kind, i), Labels: labels}}
		_, err := b.client.CoreV1().Namespaces().Create(ctx, object, metav1.CreateOptions{})
		return err
	})
}

// policy returns the document of policy i. It names no service of AWS, because no peer knows AWS's ranges. The
// destinations are in the order of egress-agent's rules.
func policy(i int) string {
	return fmt.Sprintf(`{"defaultAction": "deny", "allowedDestinations": [
  {"name": "web", "cidr": "192.0.2.0/24", "ports": [443, 8443]},
  {"name": "db", "cidr": "10.%d.%d.0/24", "ports": [5432]}]}`, i>>8&255, i&255)
}

func configMap(name, document string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"egress-controller": "managed"}},
		Data:       map[string]string{"policy.json": document},
	}
}

func policyName(i int) string { return fmt.Sprintf("policy-%d", i) }

// created are the creates of ConfigMaps.
type created struct {
	took      time.Duration
	startedAt []time.Time     // of each create, by the number of its policy
	times     []time.Duration // of the creates that succeeded, sorted
	failed    int
	err       error // of the last create that failed; nil if failed is 0
}

// create creates count policies in the namespaces of a kind, with several clients at a time. It goes on after a failure.
func (b *bench) create(ctx context.Context, kind string, count int) created {
	c := created{startedAt: make([]time.Time, count)}
	times, errs := make([]time.Duration, count), make([]error, count)
	started := time.Now()
	_ = cluster.EachOf(clients, count, func(i int) error {
		c.startedAt[i] = time.Now()
		_, errs[i] = b.client.CoreV1().ConfigMaps(namespace(kind, i)).Create(ctx, configMap(policyName(i), policy(i)), metav1.CreateOptions{})
		times[i] = time.Since(c.startedAt[i])
		return ctx.Err()
	})
	c.took = time.Since(started)
	for i, err := range errs {
		if err != nil {
			c.failed, c.err = c.failed+1, err
			continue
		}
		c.times = append(c.times, times[i])
	}
	slices.Sort(c.times)
	return c
}

// clean deletes the policies and the NetworkPolicies in the namespaces of a kind.
func (b *bench) clean(ctx context.Context, kind string) error {
	return cluster.Each(namespaceCount, func(i int) error {
		if err := b.deleteConfigMaps(ctx, kind, i); err != nil {
			return err
		}
		return b.client.NetworkingV1().NetworkPolicies(namespace(kind, i)).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
	})
}

// deleteConfigMaps deletes the policies in namespace i of a kind.
func (b *bench) deleteConfigMaps(ctx context.Context, kind string, i int) error {
	policies := metav1.ListOptions{LabelSelector: managedSelector}
	return b.client.CoreV1().ConfigMaps(namespace(kind, i)).DeleteCollection(ctx, metav1.DeleteOptions{}, policies)
}

// percentile returns a percentile of sorted times as text, and "" without times.
func percentile(sorted []time.Duration, percent int) string {
	if len(sorted) == 0 {
		return ""
	}
	return rounded(sorted[(len(sorted)-1)*percent/100])
}

func rounded(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	default:
		return d.Round(100 * time.Microsecond).String()
	}
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.0f MB", float64(bytes)/1e6) }
