package controller

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/agent/internal/apiserver"
	"egress-agent/pkg/agent/internal/testobjects"
	"egress-agent/pkg/netpol"
)

// setTime sets the clock of the controller.
func (f *fixture) setTime(now time.Time) { f.now = func() time.Time { return now } }

func cidrsOf(networkPolicy *networkingv1.NetworkPolicy) []string {
	var cidrs []string
	for _, rule := range networkPolicy.Spec.Egress {
		for _, peer := range rule.To {
			if peer.IPBlock != nil {
				cidrs = append(cidrs, peer.IPBlock.CIDR)
			}
		}
	}
	return cidrs
}

// sync syncs the key, and then fills the cache from the API server.
func (f *fixture) mustSync(t *testing.T) {
	t.Helper()
	require.NoError(t, f.sync(t.Context(), key))
}

// TestExpiredDestinationCloses walks the clock over the notices and the time of a destination. Each step is the sync that
// the timer of the step before asks for.
func TestExpiredDestinationCloses(t *testing.T) {
	expires := time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC)
	f := newFixture(t, testobjects.ConfigMap(`{"allowedDestinations": [
		{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]},
		{"name": "vpn", "cidr": "10.2.0.0/24", "ports": [443], "expires": "2027-03-31"}]}`))
	f.setTime(expires.AddDate(0, 0, -60))
	f.mustSync(t)
	require.Equal(t, []string{"10.2.0.0/24", "10.1.0.0/24"}, cidrsOf(getPolicy(t, f)))
	require.Equal(t, "Applied", f.event(t))
	require.Equal(t, float64(expires.Unix()), f.metric(t, "egress_agent_next_expiry_timestamp_seconds", ""))
	f.updateCache(t)

	for _, notice := range []struct {
		before time.Duration
		text   string
	}{
		{30 * 24 * time.Hour, "within 30 days: vpn on 2027-03-31"}, {7 * 24 * time.Hour, "within 7 days: vpn on 2027-03-31"}, {24 * time.Hour, "within 1 day: vpn on 2027-03-31"},
	} {
		f.setTime(expires.Add(-notice.before))
		for range 2 { // the second sync has no news
			f.mustSync(t)
		}
		require.Empty(t, f.writes())
		reason, message := f.nextEvent()
		require.Equal(t, "Expiring These destinations expire and then open nothing: "+notice.text, reason+" "+message)
		require.Empty(t, f.event(t))
	}

	f.setTime(expires.Add(-time.Second))
	f.mustSync(t)
	require.Empty(t, f.writes())
	f.setTime(expires)
	f.mustSync(t)
	require.Equal(t, []string{"update networkpolicies"}, f.writes())
	require.Equal(t, []string{"10.1.0.0/24"}, cidrsOf(getPolicy(t, f)))
	reason, message := f.nextEvent()
	require.Equal(t, "Expired These destinations have expired and open nothing: vpn on 2027-03-31", reason+" "+message)
	require.Empty(t, f.event(t), "no Event Applied")
	require.Zero(t, f.metric(t, "egress_agent_next_expiry_timestamp_seconds", ""))
	f.updateCache(t)

	for _, now := range []time.Time{expires.Add(time.Hour), expires.Add(-time.Hour), expires.AddDate(0, 0, -60)} {
		f.setTime(now)
		f.mustSync(t)
		require.Empty(t, f.writes(), "a clock that goes back opens nothing")
	}
	other := newFixture(t, testobjects.ConfigMap(`{"allowedDestinations": [
		{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]},
		{"name": "vpn", "cidr": "10.2.0.0/24", "ports": [443], "expires": "2027-03-31"}]}`), getPolicy(t, f))
	other.setTime(expires.Add(-time.Hour))
	other.mustSync(t)
	require.Empty(t, other.writes(), "an agent whose clock is behind does not open what another has closed")
}

// TestExpiryOfALargePolicyIsOneWrite checks that the removal does not wait as the second of two writes does.
func TestExpiryOfALargePolicyIsOneWrite(t *testing.T) {
	expires := time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC)
	document := `{"allowedDestinations": [{"name": "vpn", "cidr": "172.16.0.0/24", "ports": [443], "expires": "2027-03-31"}`
	for i := range 300 {
		document += fmt.Sprintf(`, {"name": "d%d", "cidr": "10.%d.%d.0/24", "ports": [443]}`, i, i/100, i%100*2)
	}
	f := newTwoStepFixture(t, testobjects.ConfigMap(document+`]}`))
	f.setTime(expires.Add(-time.Second))
	f.mustSync(t)
	f.updateCache(t)
	f.setTime(expires)
	f.mustSync(t)
	require.Equal(t, []string{"update networkpolicies"}, f.writes())
	require.NotContains(t, cidrsOf(getPolicy(t, f)), "172.16.0.0/24")
}

// TestLastValidPolicyExpires checks that a destination of the last valid version closes, too.
func TestLastValidPolicyExpires(t *testing.T) {
	expires := time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC)
	f := newFixture(t, testobjects.ConfigMap(`{"allowedDestinations": [{"name": "vpn", "cidr": "10.2.0.0/24", "ports": [443], "expires": "2027-03-31"}]}`))
	f.setTime(expires.Add(-time.Hour))
	f.mustSync(t)
	f.updateCache(t)
	f.setCached(t, testobjects.ConfigMap(`{"allowedDestinations": [{"name": "vpn", "cidr": "10.2.0.0/99"}]}`))
	f.mustSync(t)
	require.Empty(t, f.writes())
	require.Equal(t, float64(expires.Unix()), f.metric(t, "egress_agent_next_expiry_timestamp_seconds", ""))
	f.setTime(expires)
	f.mustSync(t)
	require.Equal(t, []string{"update networkpolicies"}, f.writes())
	require.Empty(t, cidrsOf(getPolicy(t, f)))
}

// TestTimerOfExpiry checks that a policy is enqueued for its next change, and not polled.
func TestTimerOfExpiry(t *testing.T) {
	f := newFixture(t, testobjects.ConfigMap(`{"allowedDestinations": [{"name": "vpn", "cidr": "10.2.0.0/24", "ports": [443], "expires": "2027-03-31T18:00:00Z"}]}`))
	expires := time.Date(2027, 3, 31, 18, 0, 0, 0, time.UTC)
	f.setTime(expires.Add(-time.Second)) // longer than a sync on any machine
	f.mustSync(t)
	require.Zero(t, f.queue.Len())
	require.Eventually(t, func() bool { return f.queue.Len() == 1 }, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, []string{key.String()}, f.queued(1))
}

// TestAPIServerIsFollowed replaces the endpoint of the API server: the new address opens before the old one closes.
func TestAPIServerIsFollowed(t *testing.T) {
	f := newFixtureWith(t, Options{Plan: newFixture(t).options.Plan, Settle: 5 * time.Second, Workers: 1, Namespace: "egress-system"},
		testobjects.ConfigMap(`{"allowedDestinations": [{"name": "api", "entity": "kube-apiserver"}]}`))
	start := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	f.setTime(start)
	setEndpoints := func(address string) {
		port := int32(443)
		f.endpointsHandler().OnUpdate(nil, &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: apiserver.Namespace, Name: apiserver.Name},
			Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{address}}}, Ports: []discoveryv1.EndpointPort{{Port: &port}},
		})
	}
	f.mustSync(t)
	require.Empty(t, cidrsOf(getPolicy(t, f)), "the addresses are unknown")
	require.Equal(t, "RangesUnavailable", f.event(t))
	f.updateCache(t)

	f.serviceHandler().OnAdd(&corev1.Service{Spec: corev1.ServiceSpec{ClusterIPs: []string{"172.20.0.1"}, Ports: []corev1.ServicePort{{Port: 443}}}}, true)
	setEndpoints("10.0.0.1")
	require.Equal(t, []string{key.String()}, f.queued(1))
	f.mustSync(t)
	require.Equal(t, []string{"10.0.0.1/32", "172.20.0.1/32"}, cidrsOf(getPolicy(t, f)))
	f.updateCache(t)

	setEndpoints("10.0.0.2")
	require.Equal(t, []string{key.String()}, f.queued(1))
	f.mustSync(t)
	require.Equal(t, []string{"10.0.0.1/32", "10.0.0.2/32", "172.20.0.1/32"}, cidrsOf(getPolicy(t, f)), "both are open")
	f.updateCache(t)
	f.setTime(start.Add(5 * time.Second))
	f.mustSync(t)
	require.Equal(t, []string{"10.0.0.2/32", "172.20.0.1/32"}, cidrsOf(getPolicy(t, f)))
	f.updateCache(t)

	f.endpointsHandler().OnDelete(&discoveryv1.EndpointSlice{})
	f.mustSync(t)
	require.Empty(t, f.writes(), "without an endpoint, the NetworkPolicy stays as it is")
	require.Equal(t, netpol.RangesUnavailable, f.tracker.SetState(key, ""))
}
