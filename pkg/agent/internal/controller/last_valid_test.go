package controller

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/agent/internal/plan"
	"egress-agent/pkg/agent/internal/testobjects"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
)

// TestSyncFollowsLastValidPolicy requires that the last valid version stays in force while the policy is invalid. The
// agent still applies changes of the ranges to that version, and undoes edits of the NetworkPolicy.
func TestSyncFollowsLastValidPolicy(t *testing.T) {
	f := newFixture(t, testobjects.ConfigMap(testobjects.Valid))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, plan.ReasonApplied, f.event(t))
	f.updateCache(t)
	digest := getPolicy(t, f).Annotations[netpol.PolicyDigestAnnotation]
	f.setCached(t, testobjects.ConfigMap(testobjects.Invalid))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, plan.ReasonInvalid, f.event(t))
	require.Empty(t, f.writes())

	next, err := awsranges.ReadFile(testobjects.Ranges + "ip-ranges-next.json")
	require.NoError(t, err)
	require.Contains(t, f.keysAffected(next, next.Diff(testobjects.Table(t))), key, "a change of the ranges affects the last valid version")
	f.table.Store(next)
	require.NoError(t, f.sync(t.Context(), key))
	reason, message := f.nextEvent()
	require.Equal(t, plan.ReasonRangesChanged, reason)
	require.Contains(t, message, "CIDRs added: 1, removed: 1")
	want := netpol.CompileConfigMap(testobjects.ConfigMap(testobjects.Valid), netpol.Inputs{Table: next, Options: testobjects.Options}).Spec()
	require.Equal(t, want, getPolicy(t, f).Spec)
	require.Equal(t, digest, getPolicy(t, f).Annotations[netpol.PolicyDigestAnnotation])
	f.updateCache(t)
	require.NoError(t, f.sync(t.Context(), key))
	require.Empty(t, f.writes())
	require.Empty(t, f.event(t))

	edited := getPolicy(t, f)
	edited.Spec.Egress = append(edited.Spec.Egress, networkingv1.NetworkPolicyEgressRule{})
	_, err = f.client.NetworkingV1().NetworkPolicies("tenant-a").Update(t.Context(), edited, metav1.UpdateOptions{})
	require.NoError(t, err)
	f.updateCache(t)
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, plan.ReasonRestored, f.event(t))
	require.Equal(t, want, getPolicy(t, f).Spec)

	f.updateCache(t)
	f.setCached(t, testobjects.ConfigMap(testobjects.Valid))
	require.NoError(t, f.sync(t.Context(), key))
	require.Empty(t, f.writes(), "the policy has its first version again")
}

// TestSyncLeavesUnknownLastValidPolicy requires no write if the document of the last valid policy is missing or
// defective.
func TestSyncLeavesUnknownLastValidPolicy(t *testing.T) {
	next, err := awsranges.ReadFile(testobjects.Ranges + "ip-ranges-next.json")
	require.NoError(t, err)
	for _, document := range []string{"", "{", `{"allowedDestinations": [{"name": "s3", "cidr": "10.0.0.0/99"}]}`} {
		f := newFixture(t, testobjects.ConfigMap(testobjects.Invalid), testobjects.EditedByOthers(testobjects.NetworkPolicy(t, testobjects.Valid), func(p *networkingv1.NetworkPolicy) {
			if p.Annotations[netpol.PolicyAnnotation] = document; document == "" {
				delete(p.Annotations, netpol.PolicyAnnotation)
			}
		}))
		f.table.Store(next)
		require.NoError(t, f.sync(t.Context(), key))
		require.Equal(t, plan.ReasonInvalid, f.event(t))
		require.Empty(t, f.writes())
	}
}

// TestOptionsChangeIsNoRangesChange changes --dns-cidr, which changes the CIDRs of every policy. The Event must not
// report a change of the ranges.
func TestOptionsChangeIsNoRangesChange(t *testing.T) {
	f := newFixture(t, testobjects.ConfigMap(testobjects.Valid), testobjects.NetworkPolicy(t, testobjects.Valid))
	f.options.Plan.Compile.DNSCIDRs = []netip.Prefix{netip.MustParsePrefix("169.254.20.10/32")}
	require.NoError(t, f.sync(t.Context(), key))
	reason, message := f.nextEvent()
	require.Equal(t, plan.ReasonApplied, reason)
	require.Contains(t, message, "The options of the agent changed; NetworkPolicy egress is in force")
	f.updateCache(t)
	require.NoError(t, f.sync(t.Context(), key))
	require.Empty(t, f.writes())
}
