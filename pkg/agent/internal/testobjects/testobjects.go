// Package testobjects builds the objects that the tests of the agent's packages share.
package testobjects

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// Policy documents. Edited is Valid without its service, and Widened is Valid with another port for its database.
const (
	Valid   = `{"allowedDestinations": [{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]}, {"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`
	Widened = `{"allowedDestinations": [{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]}, {"name": "db", "cidr": "10.1.0.0/24", "ports": [5432, 6432]}]}`
	Edited  = `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`
	Invalid = `{"allowedDestinations": [{}]}`
)

// Ranges is the directory of the ranges documents, from the directory of a package in pkg/agent/internal.
const Ranges = "../../../../testdata/ranges/"

// Options are the compiler's defaults for a cluster with IPv4.
var Options = netpol.Options{Family: netpol.IPv4, AllowDNS: true, MaxPortSlots: netpol.DefaultPortSlots}

// Table returns the table of ip-ranges.json.
func Table(t testing.TB) *awsranges.Table {
	table, err := awsranges.ReadFile(Ranges + "ip-ranges.json")
	require.NoError(t, err)
	return table
}

// ConfigMap returns the policy ConfigMap tenant-a/egress with this policy document.
func ConfigMap(document string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "tenant-a", Name: "egress", UID: "uid-1", Labels: map[string]string{policy.Label: policy.LabelValue}},
		Data:       map[string]string{policy.Key: document},
	}
}

// NetworkPolicy returns the NetworkPolicy that the agent writes for ConfigMap(document). For an invalid document it is
// the deny-all NetworkPolicy.
func NetworkPolicy(t testing.TB, document string) *networkingv1.NetworkPolicy {
	return NetworkPolicyOf(t, ConfigMap(document))
}

// NetworkPolicyOf returns the NetworkPolicy that the agent writes for a ConfigMap, with the ranges of Table.
func NetworkPolicyOf(t testing.TB, configMap *corev1.ConfigMap) *networkingv1.NetworkPolicy {
	return Created(netpol.Assess(configMap, nil, netpol.Inputs{Table: Table(t), Options: Options}).Desired[0])
}

// Created returns a NetworkPolicy with the generation that an API server gives it.
func Created(networkPolicy *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	networkPolicy.Generation = 1
	return networkPolicy
}

// Metadata returns the metadata of a NetworkPolicy, as an API server sends it to a client that requests no spec.
func Metadata(networkPolicy *networkingv1.NetworkPolicy) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: *networkPolicy.ObjectMeta.DeepCopy()}
}

// With applies change to an object and returns it.
func With[T any](object *T, change func(*T)) *T {
	change(object)
	return object
}

// EditedByOthers applies change to a NetworkPolicy and returns it. If change changes the spec, EditedByOthers
// increments the generation, as an API server does.
func EditedByOthers(
	networkPolicy *networkingv1.NetworkPolicy, change func(*networkingv1.NetworkPolicy),
) *networkingv1.NetworkPolicy {
	previousDigest := netpol.SpecDigestOf(networkPolicy.Spec)
	change(networkPolicy)
	if netpol.SpecDigestOf(networkPolicy.Spec) != previousDigest {
		networkPolicy.Generation++
	}
	return networkPolicy
}
