package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// truths are policies of every kind, by namespace and name.
var truths = map[string]map[string]string{
	"truth-services": {"egress": `{"allowedDestinations": [
		{"name": "s3", "awsService": "s3", "regions": ["us-east-1", "us-west-2"], "ports": [443]},
		{"name": "tables", "awsService": "DynamoDB", "ports": [443, {"port": 8000, "endPort": 8100}]}]}`},
	"truth-nested": {"egress": `{"allowedDestinations": [
		{"name": "wide", "cidr": "10.0.0.0/8", "ports": [443, {"port": 9000, "endPort": 9010, "protocol": "SCTP"}]},
		{"name": "inside", "cidr": "10.1.0.0/16", "ports": [5432, {"port": 440, "endPort": 450}]},
		{"name": "deep", "cidr": "10.1.2.0/24", "ports": [{"port": 53, "protocol": "UDP"}]},
		{"name": "half", "cidr": "172.16.0.0/25", "ports": [80]}, {"name": "other half", "cidr": "172.16.0.128/25", "ports": [80, 81]}]}`},
	"truth-every-port": {"egress": `{"allowedDestinations": [
		{"name": "all of it", "cidr": "192.0.2.0/28"}, {"name": "more", "cidr": "192.0.2.0/24", "ports": [{"port": 1, "endPort": 65535, "protocol": "UDP"}]}]}`},
	"truth-two": {
		"first":  `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`,
		"second": `{"allowedDestinations": [{"name": "web", "cidr": "10.1.0.0/25", "ports": [443]}, {"name": "s3", "awsService": "S3", "regions": ["us-east-1"]}]}`},
	"truth-nothing":  {"egress": `{"allowedDestinations": []}`},
	"truth-allow":    {"egress": `{"defaultAction": "allow", "allowedDestinations": []}`},
	"truth-mistaken": {"good": `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`, "typo": `{"allowedDestinations": [{"name": "web", "cidr": "10.1.0.0/99"}]}`},
}

// target is where a question asks to.
type target struct {
	address  netip.Addr
	port     int
	protocol corev1.Protocol
}

func (q target) String() string { return fmt.Sprintf("%s:%d/%s", q.address, q.port, q.protocol) }

// TestExplainTellsTheTruth asks explain, as a person would, of what a namespace's ConfigMaps hold, and
// compares its answer with what the NetworkPolicies in the API server say by Kubernetes' own definition.
func TestExplainTellsTheTruth(t *testing.T) {
	const questions = 200
	file := ranges
	if dir := os.Getenv("IP_RANGES_DATA"); dir != "" {
		file = filepath.Join(dir, "ip-ranges.json")
	}
	startAgent(t, "--ranges-file", file)
	var namespaces []string
	manifests, stored := make(map[string]string), make(map[string][]networkingv1.NetworkPolicy)
	for name, policies := range truths {
		namespaces = append(namespaces, name)
		namespace(t, name)
		for policy, document := range policies {
			kubectl(t, manifest(name, policy, document), "apply", "-f", "-")
			eventuallyPolicy(t, name, policy, "there", exists)
		}
		manifests[name] = kubectl(t, "", "get", "configmap", "-n", name, "-l", "egress-controller=managed", "-o", "yaml")
		list, err := control.Admin.NetworkingV1().NetworkPolicies(name).List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		require.Len(t, list.Items, len(policies))
		stored[name] = list.Items
	}
	slices.Sort(namespaces)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	allowed := 0
	for range questions {
		of := namespaces[random.IntN(len(namespaces))]
		around := of
		if around == "truth-nothing" || around == "truth-allow" { // which name nothing to ask around
			around = "truth-nested"
		}
		q := ask(random, stored[around])
		want := permitted(stored[of], q)
		if want {
			allowed++
		}
		got, status, stderr := explained(t, manifests[of], file, q)
		require.Equal(t, want, got, "%s in %s, seed %d", q, of, seed)
		mistaken := of == "truth-mistaken"
		require.Equal(t, mistaken, strings.Contains(stderr, "Invalid CIDR format: 10.1.0.0/99"), stderr)
		require.Equal(t, !want || mistaken, status == 1, "exit status %d of %s in %s, seed %d", status, q, of, seed)
	}
	t.Logf("%d of %d allowed, seed %d", allowed, questions, seed)
	require.Greater(t, allowed, questions/4, "seed %d", seed)
	require.Less(t, allowed, questions*3/4, "seed %d", seed)
}

// ask picks a target in or at the edges of what some NetworkPolicies open: mostly of what one rule does.
func ask(random *rand.Rand, policies []networkingv1.NetworkPolicy) target {
	var rules []networkingv1.NetworkPolicyEgressRule
	for _, policy := range policies {
		rules = append(rules, slices.DeleteFunc(slices.Clone(policy.Spec.Egress), func(rule networkingv1.NetworkPolicyEgressRule) bool {
			return rule.To[0].IPBlock == nil // DNS
		})...)
	}
	rule := rules[random.IntN(len(rules))]
	prefix := netip.MustParsePrefix(rule.To[random.IntN(len(rule.To))].IPBlock.CIDR)
	first := prefix.Addr()
	bytes := first.As4() // the agent writes IPv4 alone
	last := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(bytes[:])|(1<<(32-prefix.Bits())-1))))
	q := target{
		address:  []netip.Addr{first, first, last, last, first.Prev(), last.Next()}[random.IntN(6)],
		port:     []int{53, 443, 5432, 65535}[random.IntN(4)],
		protocol: []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}[random.IntN(3)],
	}
	if len(rule.Ports) == 0 || random.IntN(4) == 0 {
		return q
	}
	port := rule.Ports[random.IntN(len(rule.Ports))]
	begin, end := int(port.Port.IntVal), int(port.Port.IntVal)
	if port.EndPort != nil {
		end = int(*port.EndPort)
	}
	q.port = min(max([]int{begin, begin, end, end, begin - 1, end + 1}[random.IntN(6)], 1), 65535)
	q.protocol = *port.Protocol
	return q
}

// permitted reads NetworkPolicies as their API documents them
// (https://kubernetes.io/docs/concepts/services-networking/network-policies/): for a target outside the
// cluster, which no selector of pods is of.
func permitted(policies []networkingv1.NetworkPolicy, q target) bool {
	isolated := false
	for _, policy := range policies {
		if !slices.Contains(policy.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) {
			continue
		}
		isolated = true
		for _, rule := range policy.Spec.Egress {
			if toPeer(rule.To, q.address) && toPort(rule.Ports, q) {
				return true
			}
		}
	}
	return !isolated
}

func toPeer(peers []networkingv1.NetworkPolicyPeer, address netip.Addr) bool {
	return len(peers) == 0 || slices.ContainsFunc(peers, func(peer networkingv1.NetworkPolicyPeer) bool {
		return peer.IPBlock != nil && netip.MustParsePrefix(peer.IPBlock.CIDR).Contains(address) &&
			!slices.ContainsFunc(peer.IPBlock.Except, func(except string) bool { return netip.MustParsePrefix(except).Contains(address) })
	})
}

func toPort(ports []networkingv1.NetworkPolicyPort, q target) bool {
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

// explained asks the built program, and says whether any policy allows the target.
func explained(t *testing.T, manifests, ranges string, q target) (allowed bool, status int, stderr string) {
	command := exec.CommandContext(t.Context(), filepath.Join(binaries(), "egress-agent"), "explain", "-f", "-", "--ranges-file", ranges, "--to", q.String(), "-o", "json")
	var errs bytes.Buffer
	command.Stdin, command.Stderr = strings.NewReader(manifests), &errs
	output, _ := command.Output() // its status is looked at
	var answers []struct{ Allowed bool }
	require.NoError(t, json.Unmarshal(output, &answers), "%s%s", output, &errs)
	for _, answer := range answers {
		allowed = allowed || answer.Allowed
	}
	return allowed, command.ProcessState.ExitCode(), errs.String()
}
