package domains

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

func compile(t *testing.T, document string, options netpol.Options) *networkingv1.NetworkPolicy {
	t.Helper()
	configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Data: map[string]string{policy.Key: document}}
	compiled := netpol.CompileConfigMap(configMap, netpol.Inputs{Options: options})
	require.Empty(t, compiled.Problems)
	return netpol.NetworkPolicyFor(configMap, compiled)
}

const document = `{"podSelector": {"matchLabels": {"app": "web"}}, "allowedDestinations": [
	{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]},
	{"name": "api", "domain": "api.example.com", "ports": [443, {"port": 8000, "endPort": 8100, "protocol": "UDP"}]},
	{"name": "below", "domain": "*.example.org"}]}`

func TestOf(t *testing.T) {
	metadata := `"metadata":{"name":"web","namespace":"shop","labels":{"app.kubernetes.io/managed-by":"egress-agent"}}`
	options := netpol.Options{Family: netpol.IPv4, AllowDNS: true, DNSCIDRs: []netip.Prefix{netip.MustParsePrefix("169.254.20.10/32")}}
	const dns = `"toPorts":[{"ports":[{"port":"53","protocol":"UDP"},{"port":"53","protocol":"TCP"}],"rules":{"dns":[{"matchPattern":"*"}]}}]`
	for kind, want := range map[netpol.Domains]string{
		netpol.ApplicationNetworkPolicy: `{"kind":"ApplicationNetworkPolicy","apiVersion":"networking.k8s.aws/v1alpha1",` + metadata + `,` +
			`"spec":{"podSelector":{"matchLabels":{"app":"web"}},"policyTypes":["Egress"],"egress":[{"to":[{"domainNames":["*.example.org"]}]},` +
			`{"to":[{"domainNames":["api.example.com"]}],"ports":[{"protocol":"TCP","port":443},{"protocol":"UDP","port":8000,"endPort":8100}]}]}}`,
		netpol.Cilium: `{"kind":"CiliumNetworkPolicy","apiVersion":"cilium.io/v2",` + metadata + `,` +
			`"spec":{"endpointSelector":{"matchLabels":{"app":"web"}},"egress":[` +
			`{"toEndpoints":[{"matchLabels":{"k8s:io.kubernetes.pod.namespace":"kube-system","k8s:k8s-app":"kube-dns"}}],` + dns + `},` +
			`{"toCIDR":["169.254.20.10/32"],` + dns + `},` +
			`{"toFQDNs":[{"matchPattern":"**.example.org"}]},` +
			`{"toFQDNs":[{"matchName":"api.example.com"}],"toPorts":[{"ports":[{"port":"443","protocol":"TCP"},{"port":"8000","endPort":8100,"protocol":"UDP"}]}]}]}}`,
	} {
		options.Domains = kind
		object, err := Of(compile(t, document, options), options)
		require.NoError(t, err)
		got, err := json.Marshal(object)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
}

func TestOfMakesNothing(t *testing.T) {
	options := netpol.Options{Family: netpol.IPv4, AllowDNS: true, Domains: netpol.Cilium}
	object, err := Of(compile(t, `{"allowedDestinations": []}`, options), options)
	require.NoError(t, err)
	require.Nil(t, object)
	for _, annotation := range []string{"x", `[{"domains":[]}]`, `[{}]`} {
		object, err = Of(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{netpol.DomainsAnnotation: annotation}}}, options)
		require.ErrorContains(t, err, "annotation egress-controller/domains")
		require.Nil(t, object)
	}
}

// TestCiliumPortsAreSplit lists each port once, 40 in an item of toPorts.
func TestCiliumPortsAreSplit(t *testing.T) {
	var ports []string
	for i := range 90 {
		ports = append(ports, fmt.Sprint(1000+2*i))
	}
	options := netpol.Options{Family: netpol.IPv4, AllowDNS: true, Domains: netpol.Cilium}
	object, err := Of(compile(t, `{"allowedDestinations": [{"name": "api", "domain": "api.example.com", "ports": [`+strings.Join(ports, ",")+`]}]}`, options), options)
	require.NoError(t, err)
	items := object.Spec.(CiliumSpec).Egress[1].ToPorts
	require.Len(t, items, 3)
	var got []string
	for _, item := range items {
		require.LessOrEqual(t, len(item.Ports), maxCiliumPorts)
		for _, port := range item.Ports {
			got = append(got, port.Port)
		}
	}
	require.Equal(t, ports, got)
}
