package page

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// program is the path of the built program.
const program = "../../../bin/egress-agent"

var options = netpol.Options{Family: netpol.Dual, AllowDNS: true, MaxPortSlots: netpol.DefaultPortSlots}

// cluster answers the requests of status, in place of an API server.
type cluster struct {
	configMaps      []corev1.ConfigMap
	networkPolicies []networkingv1.NetworkPolicy
	ranges          *awsranges.Table
}

func newCluster(t *testing.T) *cluster {
	// As many prefixes as AMAZON has in all regions. No two aggregate.
	var ipv4, ipv6 []string
	for i := range 1753 {
		ipv4 = append(ipv4, fmt.Sprintf(`{"ip_prefix": "3.%d.%d.0/24", "region": "us-east-1", "service": "AMAZON", "network_border_group": "us-east-1"}`, i/128, i%128*2))
	}
	for _, service := range []string{"AMAZON", "S3"} {
		ipv4 = append(ipv4, fmt.Sprintf(`{"ip_prefix": "52.216.0.0/15", "region": "us-east-1", "service": %q, "network_border_group": "us-east-1"}`, service))
		ipv6 = append(ipv6, fmt.Sprintf(`{"ipv6_prefix": "2600:1fa0:8000::/39", "region": "us-east-1", "service": %q, "network_border_group": "us-east-1"}`, service))
	}
	table, err := awsranges.Parse([]byte(`{"syncToken": "1700000000", "createDate": "2023-11-14-22-13-20", "prefixes": [` + strings.Join(ipv4, ",") + `], "ipv6_prefixes": [` + strings.Join(ipv6, ",") + `]}`))
	require.NoError(t, err)
	return &cluster{ranges: table}
}

// add adds a policy and, if applied is true, the NetworkPolicy that the agent would write.
func (c *cluster) add(t *testing.T, namespace, name, document string, applied bool) {
	configMap := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string]string{policy.Key: document}}
	c.configMaps = append(c.configMaps, configMap)
	if applied {
		compiled := netpol.CompileConfigMap(&configMap, netpol.Inputs{Table: c.ranges, Options: options})
		require.Empty(t, compiled.Problems)
		c.networkPolicies = append(c.networkPolicies, *netpol.NetworkPolicyFor(&configMap, compiled))
	}
}

// addOther adds a NetworkPolicy of another owner. Without CIDRs it allows everything.
func (c *cluster) addOther(namespace, name string, cidrs ...string) {
	var rule networkingv1.NetworkPolicyEgressRule
	for _, cidr := range cidrs {
		rule.To = append(rule.To, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr}})
	}
	c.networkPolicies = append(c.networkPolicies, networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, Egress: []networkingv1.NetworkPolicyEgressRule{rule}}})
}

// page returns the path of the page that the built program writes about the cluster.
func (c *cluster) page(t *testing.T) string {
	encoded, err := awsranges.Encode(c.ranges)
	require.NoError(t, err)
	answer := func(kind, version string, object any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			data, err := json.Marshal(object)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"kind": %q, "apiVersion": %q, %s`, kind, version, data[1:])
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/configmaps", answer("ConfigMapList", "v1", corev1.ConfigMapList{Items: c.configMaps}))
	mux.HandleFunc("GET /apis/networking.k8s.io/v1/networkpolicies", answer("NetworkPolicyList", "networking.k8s.io/v1", networkingv1.NetworkPolicyList{Items: c.networkPolicies}))
	mux.HandleFunc("GET /api/v1/namespaces/egress-system/configmaps/egress-ranges", answer("ConfigMap", "v1", corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "egress-system", Name: "egress-ranges", Annotations: map[string]string{"egress-controller/confirmed": "2026-11-24T07:30:00Z"}},
		BinaryData: map[string][]byte{"ip-ranges.json.gz": encoded},
	}))
	server := httptest.NewServer(mux)
	defer server.Close()
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	require.NoError(t, os.WriteFile(kubeconfig, []byte(`{"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c"}}], "clusters": [{"name": "c", "cluster": {"server": "`+server.URL+`"}}]}`), 0o600))
	output, err := exec.Command(program, "status", "--kubeconfig", kubeconfig, "-o", "html").Output()
	if exit, failed := err.(*exec.ExitError); failed && exit.ExitCode() != 1 { // 1 means that some policy is not applied
		require.NoError(t, err, string(exit.Stderr))
	}
	require.NotEmpty(t, output, "%v: build the program with 'make build'", err)
	file := filepath.Join(dir, "page.html")
	require.NoError(t, os.WriteFile(file, output, 0o600))
	return file
}
