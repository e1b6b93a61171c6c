package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
	"egress-agent/scripts/e2e/harness"
)

// explainPolicy is a policy that explain reads.
type explainPolicy struct {
	namespace, name, document string
	notApplied                string // why explain gives no answer; "" for a policy that is applied
}

var explainPolicies = []explainPolicy{
	{"truth-allow", "egress", `{"defaultAction": "allow", "allowedDestinations": []}`, ""},
	{"truth-crowded", "egress", `{"allowedDestinations": [{"name": "apps", "cidr": "10.4.0.0/16", "ports": [` + harness.SparsePorts(1001, 23) + `]}]}`,
		"Too many ports: 10.4.0.0/16 has 23 ports and port ranges, and DNS takes 2; AWS VPC CNI enforces at most 24 for a CIDR: merge or remove ports of apps (allowedDestinations)"},
	{"truth-every-port", "egress", `{"allowedDestinations": [
			{"name": "all of it", "cidr": "192.0.2.0/28"}, {"name": "more", "cidr": "192.0.2.0/24", "ports": [{"port": 1, "endPort": 65535, "protocol": "UDP"}]}]}`, ""},
	{"truth-mistaken", "good", `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`, ""},
	{"truth-mistaken", "typo", `{"allowedDestinations": [{"name": "web", "cidr": "10.1.0.0/99"}]}`, "Invalid CIDR format: 10.1.0.0/99 (allowedDestinations[0].cidr)"},
	{"truth-nested", "egress", `{"allowedDestinations": [
			{"name": "wide", "cidr": "10.0.0.0/8", "ports": [443, {"port": 9000, "endPort": 9010, "protocol": "SCTP"}]},
			{"name": "inside", "cidr": "10.1.0.0/16", "ports": [5432, {"port": 440, "endPort": 450}]},
			{"name": "deep", "cidr": "10.1.2.0/24", "ports": [{"port": 53, "protocol": "UDP"}]},
			{"name": "half", "cidr": "172.16.0.0/25", "ports": [80]}, {"name": "other half", "cidr": "172.16.0.128/25", "ports": [80, 81]}]}`, ""},
	{"truth-nothing", "egress", `{"allowedDestinations": []}`, ""},
	{"truth-services", "egress", `{"allowedDestinations": [
			{"name": "s3", "awsService": "s3", "regions": ["us-east-1", "us-west-2"], "ports": [443]},
			{"name": "tables", "awsService": "DynamoDB", "ports": [443, {"port": 8000, "endPort": 8100}]}]}`, ""},
	{"truth-six", "egress", `{"allowedDestinations": [
			{"name": "wide", "cidr": "2001:db8::/32", "ports": [443]}, {"name": "one", "cidr": "2001:db8::5/128", "ports": [5432]},
			{"name": "s3", "awsService": "s3", "regions": ["us-west-2"], "ports": [80]}]}`, ""},
	{"truth-two", "first", `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`, ""},
	{"truth-two", "second", `{"allowedDestinations": [{"name": "web", "cidr": "10.1.0.0/25", "ports": [443]}, {"name": "s3", "awsService": "S3", "regions": ["us-east-1"]}]}`, ""},
}

// ingressOnly is a NetworkPolicy of another owner. It does not isolate the egress of any pod, so its egress rules have
// no effect.
const ingressOnly = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: ingress-only, namespace: truth-two}\n" +
	"spec: {podSelector: {}, policyTypes: [Ingress], egress: [{}]}\n"

// target is the address, port and protocol of a connection.
type target struct {
	address  netip.Addr
	port     int
	protocol corev1.Protocol
}

func (q target) String() string {
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(q.address, uint16(q.port)), q.protocol)
}

// peerPorts is a list of prefixes with the same ports. Without ports it means every port.
type peerPorts struct {
	prefixes []netip.Prefix
	ports    []policy.Port
}

// TestExplainMatchesNetworkPolicies runs explain on the ConfigMaps of some namespaces, for random targets. It compares
// the answers with an evaluation of the NetworkPolicies in the API server by Kubernetes' definition. SEED=N repeats the
// targets of an earlier run.
func TestExplainMatchesNetworkPolicies(t *testing.T) {
	const runCount = 100 // half for one namespace, half for all nine: 500 answers
	seed := rand.Uint64()
	if text := os.Getenv("SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := newExplainScene(t)
	allowed := 0
	for i := range runCount {
		of := s.namespaces[random.IntN(len(s.namespaces))]
		around := of
		if len(s.requested[of]) == 0 { // it has no destinations to choose a target from
			around = "truth-nested"
		}
		openings := s.requested[around]
		if stored := storedPeerPorts(s.stored[around]); len(stored) > 0 && random.IntN(2) == 0 {
			openings = stored
		}
		q := randomTarget(random, openings)
		if isAllowed(s.stored[of], q) {
			allowed++
		}
		if i%2 == 0 {
			s.check(t, q, of)
		} else {
			s.check(t, q, s.namespaces...)
		}
	}
	t.Logf("%d of %d allowed", allowed, runCount)
	require.Greater(t, allowed, runCount/10)
	require.Less(t, allowed, runCount*9/10)
}

// explainScene holds the input and the expected answers of explain, by namespace.
type explainScene struct {
	ranges     string
	namespaces []string
	files      map[string]string      // with the ConfigMaps, as kubectl prints them
	requested  map[string][]peerPorts // of the policies, row by row
	stored     map[string][]networkingv1.NetworkPolicy
}

func newExplainScene(t *testing.T) *explainScene {
	t.Helper()
	s := &explainScene{ranges: harness.RangesFile, files: make(map[string]string), requested: make(map[string][]peerPorts), stored: make(map[string][]networkingv1.NetworkPolicy)}
	if dir := os.Getenv("IP_RANGES_DATA"); dir != "" {
		s.ranges = filepath.Join(dir, "ip-ranges.json")
	}
	table, err := awsranges.ReadFile(s.ranges)
	require.NoError(t, err)
	harness.StartAgent(t, "--ranges-file", s.ranges, "--ip-family", "dual")
	manifests := []string{ingressOnly}
	for _, truth := range explainPolicies {
		if !slices.Contains(s.namespaces, truth.namespace) {
			s.namespaces = append(s.namespaces, truth.namespace)
			harness.CreateNamespace(t, truth.namespace)
		}
		manifests = append(manifests, harness.PolicyManifest(truth.namespace, truth.name, truth.document))
		s.requested[truth.namespace] = append(s.requested[truth.namespace], requestedPeerPorts(truth.document, table)...)
	}
	harness.Kubectl(t, strings.Join(manifests, "---\n"), "apply", "-f", "-")
	for _, truth := range explainPolicies {
		harness.AwaitNetworkPolicy(t, truth.namespace, truth.name, "there", harness.Exists)
	}
	dir := t.TempDir()
	for _, name := range s.namespaces {
		list, err := harness.Control(t).Admin.NetworkingV1().NetworkPolicies(name).List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		s.stored[name] = list.Items
		s.files[name] = filepath.Join(dir, name+".yaml")
		require.NoError(t, os.WriteFile(s.files[name], []byte(harness.Kubectl(t, "", "get", "configmap", "-n", name, "-l", "egress-controller=managed", "-o", "yaml")), 0o600))
	}
	return s
}

// check runs explain once for all of some namespaces.
func (s *explainScene) check(t *testing.T, q target, namespaces ...string) {
	t.Helper()
	arguments := []string{"explain", "--ranges-file", s.ranges, "--ip-family", "dual", "--to", q.String(), "-o", "json"}
	for _, name := range namespaces {
		arguments = append(arguments, "-f", s.files[name])
	}
	command := exec.CommandContext(t.Context(), harness.Binary(t, "egress-agent"), arguments...)
	var errs bytes.Buffer
	command.Stderr = &errs
	output, _ := command.Output() // the exit status is checked below
	var answers []struct {
		Namespace, Name string
		Allowed         bool
	}
	require.NoError(t, json.Unmarshal(output, &answers), "%s%s", output, &errs)

	answered, allowed, applied := make(map[string]bool), make(map[string]bool), true
	for _, answer := range answers {
		answered[answer.Namespace+"/"+answer.Name] = true
		allowed[answer.Namespace] = allowed[answer.Namespace] || answer.Allowed
	}
	for _, truth := range explainPolicies {
		if key := truth.namespace + "/" + truth.name; slices.Contains(namespaces, truth.namespace) {
			require.Equal(t, truth.notApplied == "", answered[key], "%s in %s", q, key)
			require.Equal(t, truth.notApplied != "", strings.Contains(errs.String(), ": "+key+": "+truth.notApplied), "%s in %s: %s", q, key, &errs)
			applied = applied && truth.notApplied == ""
		}
	}
	everywhere := true
	for _, name := range namespaces {
		want := isAllowed(s.stored[name], q)
		require.Equal(t, want, allowed[name], "%s in %s", q, name)
		everywhere = everywhere && want
	}
	require.Equal(t, everywhere && applied, command.ProcessState.ExitCode() == 0, "exit status of %s in %s", q, namespaces)
}

// requestedPeerPorts returns the destinations of a policy, row by row, also if the agent does not apply it. It includes
// rows that the agent leaves out.
func requestedPeerPorts(document string, table *awsranges.Table) []peerPorts {
	p := netpol.CompileConfigMap(&corev1.ConfigMap{Data: map[string]string{policy.Key: document}}, netpol.Inputs{Table: table}).Policy
	if p == nil {
		return nil
	}
	var openings []peerPorts
	for _, d := range p.Destinations {
		o := peerPorts{ports: d.Ports}
		if d.Service == "" {
			o.prefixes = []netip.Prefix{d.CIDR}
		}
		for _, row := range table.Rows() {
			if row.Service == awsranges.Canonical(d.Service) && (d.Regions == nil || slices.Contains(d.Regions, row.Region)) {
				o.prefixes = append(o.prefixes, row.Prefix)
			}
		}
		openings = append(openings, o)
	}
	return openings
}

// storedPeerPorts returns the rules with CIDRs of some NetworkPolicies.
func storedPeerPorts(policies []networkingv1.NetworkPolicy) []peerPorts {
	var openings []peerPorts
	for _, p := range policies {
		for _, rule := range p.Spec.Egress {
			var o peerPorts
			for _, peer := range rule.To {
				if peer.IPBlock != nil { // not the DNS rule
					o.prefixes = append(o.prefixes, netip.MustParsePrefix(peer.IPBlock.CIDR))
				}
			}
			for _, port := range rule.Ports {
				first := uint16(port.Port.IntVal)
				o.ports = append(o.ports, policy.Port{Protocol: policy.Protocol(*port.Protocol), First: first, Last: first})
				if port.EndPort != nil {
					o.ports[len(o.ports)-1].Last = uint16(*port.EndPort)
				}
			}
			if len(o.prefixes) > 0 {
				openings = append(openings, o)
			}
		}
	}
	return openings
}

// randomTarget returns a target inside one of the peerPorts, or directly outside its edges.
func randomTarget(random *rand.Rand, openings []peerPorts) target {
	o := openings[random.IntN(len(openings))]
	prefix := o.prefixes[random.IntN(len(o.prefixes))]
	first, last := prefix.Addr(), lastAddress(prefix)
	q := target{
		address:  []netip.Addr{first, first, last, last, first.Prev(), last.Next()}[random.IntN(6)],
		port:     []int{53, 443, 5432, 65535}[random.IntN(4)],
		protocol: []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}[random.IntN(3)],
	}
	if len(o.ports) == 0 || random.IntN(4) == 0 {
		return q
	}
	port := o.ports[random.IntN(len(o.ports))]
	begin, end := int(port.First), int(port.Last)
	q.port = min(max([]int{begin, begin, end, end, begin - 1, end + 1}[random.IntN(6)], 1), 65535)
	q.protocol = corev1.Protocol(port.Protocol)
	return q
}

func lastAddress(prefix netip.Prefix) netip.Addr {
	bytes := prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	address, _ := netip.AddrFromSlice(bytes)
	return address
}

// isAllowed reports whether NetworkPolicies allow a target, by their API documentation
// (https://kubernetes.io/docs/concepts/services-networking/network-policies/). The target is outside the cluster, so
// that no pod selector matches it.
func isAllowed(policies []networkingv1.NetworkPolicy, q target) bool {
	isolated := false
	for _, policy := range policies {
		if !slices.Contains(policy.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) {
			continue
		}
		isolated = true
		for _, rule := range policy.Spec.Egress {
			if matchesPeer(rule.To, q.address) && matchesPort(rule.Ports, q) {
				return true
			}
		}
	}
	return !isolated
}

func matchesPeer(peers []networkingv1.NetworkPolicyPeer, address netip.Addr) bool {
	return len(peers) == 0 || slices.ContainsFunc(peers, func(peer networkingv1.NetworkPolicyPeer) bool {
		return peer.IPBlock != nil && netip.MustParsePrefix(peer.IPBlock.CIDR).Contains(address) &&
			!slices.ContainsFunc(peer.IPBlock.Except, func(except string) bool { return netip.MustParsePrefix(except).Contains(address) })
	})
}

func matchesPort(ports []networkingv1.NetworkPolicyPort, q target) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(port networkingv1.NetworkPolicyPort) bool {
		protocol := corev1.ProtocolTCP
		if port.Protocol != nil {
			protocol = *port.Protocol
		}
		switch {
		case protocol != q.protocol:
			return false
		case port.Port == nil:
			return true
		case port.EndPort != nil:
			return int(port.Port.IntVal) <= q.port && q.port <= int(*port.EndPort)
		}
		return int(port.Port.IntVal) == q.port
	})
}
