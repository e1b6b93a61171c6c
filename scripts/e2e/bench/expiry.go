package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"egress-agent/scripts/e2e/cluster"
)

// expiring is the size that measures destinations that expire.
const expiring = "expiry"

// expiryStep is the time between the expiries of two policies.
const expiryStep = 20 * time.Millisecond

// expiringPolicy returns the i-th policy, with a destination that stays and three that expire. The first of these expires
// at a time, and the others much later.
func expiringPolicy(i int, first time.Time) *corev1.ConfigMap {
	policy := configMap("egress", i)
	later := time.Now().AddDate(0, 0, 60).UTC()
	destinations := []string{`{"name": "stays", "cidr": "10.1.0.0/24", "ports": [443]}`}
	for k, expires := range []time.Time{first, later, later.Add(time.Hour)} {
		destinations = append(destinations, fmt.Sprintf(`{"name": "d%d", "cidr": "10.%d.0.0/24", "ports": [443], "expires": %q}`, k, 10+k, expires.UTC().Format(time.RFC3339Nano)))
	}
	policy.Data["policy.json"] = `{"allowedDestinations": [` + strings.Join(destinations, ", ") + `]}`
	return policy
}

// expiry measures an idle agent with policies whose destinations expire, and the time from each expiry to its write.
func (b *bench) expiry(ctx context.Context) error {
	n := b.size.policies
	p, err := b.start()
	if err != nil {
		return err
	}
	far := time.Now().AddDate(0, 0, 50)
	err = cluster.Each(n, func(i int) error {
		_, err := b.client.CoreV1().ConfigMaps(b.namespace(i)).Create(ctx, expiringPolicy(i, far), metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	if err := b.awaitSynced(ctx, p, n); err != nil {
		return err
	}
	if err := b.awaitNoWrites(ctx); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "measuring: idle")
	if err := b.idle(ctx, p, n, true); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "measuring: expiries")
	if err := b.measureExpiries(ctx, n); err != nil {
		return err
	}
	return p.Stop()
}

// measureExpiries lets a destination of each policy expire, one policy after the other.
func (b *bench) measureExpiries(ctx context.Context, n int) error {
	const lead = 2 * time.Minute // until the agent has written every changed policy
	first := time.Now().Add(lead)
	err := cluster.Each(n, func(i int) error {
		_, err := b.client.CoreV1().ConfigMaps(b.namespace(i)).Update(ctx, expiringPolicy(i, first.Add(time.Duration(i)*expiryStep)), metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	list, err := b.client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return err
	}
	watcher, err := b.client.NetworkingV1().NetworkPolicies("").Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return err
	}
	defer watcher.Stop()
	index := make(map[string]int, n)
	for i := range n {
		index[b.namespace(i)] = i
	}
	var latencies []time.Duration
	deadline := time.After(time.Until(first) + time.Duration(n)*expiryStep + time.Minute)
	for len(latencies) < n {
		select {
		case event, ok := <-watcher.ResultChan():
			if !ok {
				return fmt.Errorf("the watch ended after %d of %d expiries", len(latencies), n)
			}
			policy, ok := event.Object.(*networkingv1.NetworkPolicy)
			if !ok || event.Type != watch.Modified || isOpen(policy, "10.10.0.0/24") {
				continue
			}
			latency := time.Since(first.Add(time.Duration(index[policy.Namespace]) * expiryStep))
			if latency < 0 {
				return fmt.Errorf("%s closed %s too early", policy.Namespace, -latency)
			}
			latencies = append(latencies, latency)
		case <-deadline:
			return fmt.Errorf("%d of %d destinations expired", len(latencies), n)
		}
	}
	slices.Sort(latencies)
	for _, percent := range []int{50, 99, 100} {
		latency := latencies[(n-1)*percent/100]
		b.rows = append(b.rows, []string{fmt.Sprintf("an expiry to its write, p%d of %d", percent, n), rounded(latency), "", "", "1s"})
	}
	return nil
}

// isOpen reports whether a NetworkPolicy lists a CIDR.
func isOpen(policy *networkingv1.NetworkPolicy, cidr string) bool {
	for _, rule := range policy.Spec.Egress {
		for _, peer := range rule.To {
			if peer.IPBlock != nil && peer.IPBlock.CIDR == cidr {
				return true
			}
		}
	}
	return false
}
