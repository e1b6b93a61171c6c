package netpol

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unique"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// UsageAnnotation has the result of Usage.String for the spec that the agent wrote. With it, the agent need not read
// the specs to add up the usage of a namespace's policies.
const UsageAnnotation = "egress-controller/usage"

// GenerationAnnotation has the metadata.generation of the NetworkPolicy after the agent's last write. An API server
// raises the generation with each change of the spec. If the generation has another value, somebody may have edited the
// spec.
const GenerationAnnotation = "egress-controller/generation"

// maxUsagePorts limits the number of ports in a UsageAnnotation.
const maxUsagePorts = 64

// PortKey identifies a port or port range of a rule, in one word of memory.
type PortKey struct{ text unique.Handle[string] }

// everyPort means every port of every protocol.
var everyPort = PortKey{unique.Make("*")}

// String returns PROTOCOL/PORT, PROTOCOL/PORT-END, PROTOCOL/* for every port of a protocol, or "*" for every port of
// every protocol.
func (k PortKey) String() string { return k.text.Value() }

func portKeys(ports []networkingv1.NetworkPolicyPort) []PortKey {
	if len(ports) == 0 {
		return []PortKey{everyPort}
	}
	keys := make([]PortKey, len(ports))
	for i, port := range ports {
		protocol, number, end := corev1.ProtocolTCP, "*", ""
		if port.Protocol != nil {
			protocol = *port.Protocol
		}
		if port.Port != nil {
			number = port.Port.String()
		}
		if port.EndPort != nil {
			end = "-" + strconv.Itoa(int(*port.EndPort))
		}
		keys[i] = PortKey{unique.Make(string(protocol) + "/" + number + end)}
	}
	return keys
}

// String returns the number of CIDRs and the ports, sorted, such as "16 TCP/443 UDP/8000-8100". "many" stands for more
// than 64 ports.
func (u Usage) String() string {
	words := make([]string, 0, 1+len(u.Ports))
	if u.Many || len(u.Ports) > maxUsagePorts {
		words = append(words, "many")
	} else {
		for _, port := range u.Ports {
			words = append(words, port.String())
		}
		slices.Sort(words)
	}
	return strings.Join(append([]string{strconv.Itoa(u.CIDRs)}, words...), " ")
}

// ParseUsage parses a text that Usage.String returned. ok is false for any other text.
func ParseUsage(text string) (usage Usage, ok bool) {
	words := strings.Fields(text)
	if len(words) == 0 || len(words) > 1+maxUsagePorts {
		return Usage{}, false
	}
	cidrs, err := strconv.ParseUint(words[0], 10, 31)
	if err != nil {
		return Usage{}, false
	}
	usage.CIDRs = int(cidrs)
	if len(words) == 2 && words[1] == "many" {
		usage.Many = true
		return usage, true
	}
	if len(words) > 1 {
		usage.Ports = make([]PortKey, len(words)-1)
	}
	for i, word := range words[1:] {
		if !isPortKey.MatchString(word) {
			return Usage{}, false
		}
		usage.Ports[i] = PortKey{unique.Make(word)}
	}
	return usage, true
}

var isPortKey = regexp.MustCompile(`^(\*|(TCP|UDP|SCTP)/(\*|[0-9]{1,5}(-[0-9]{1,5})?))$`)

// SetSpecAnnotations sets the annotations that describe the spec of a NetworkPolicy. generation is the
// metadata.generation that the NetworkPolicy has after the write.
func SetSpecAnnotations(networkPolicy *networkingv1.NetworkPolicy, generation int64) {
	networkPolicy.Annotations[SpecDigestAnnotation] = SpecDigestOf(networkPolicy.Spec)
	networkPolicy.Annotations[UsageAnnotation] = UsageOf(networkPolicy.Spec).String()
	networkPolicy.Annotations[GenerationAnnotation] = strconv.FormatInt(generation, 10)
}
