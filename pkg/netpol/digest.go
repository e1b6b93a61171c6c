package netpol

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// SpecDigestOf returns the SHA-256 of a spec, in hex. Equal specs have equal digests. An API server drops empty fields
// of a spec, and the digest stays the same. Specs with any other difference, such as another order of rules, have
// different digests.
//
// The agent calls it for every NetworkPolicy of the cluster when it starts. JSON would be too slow for the ports and
// peers that every spec has. Each value has a tag and a length or a type, so no two different specs give the same text.
// Rare fields are JSON.
func SpecDigestOf(spec networkingv1.NetworkPolicySpec) string {
	text := make([]byte, 0, 1024)
	text = appendSelector(text, 's', &spec.PodSelector)
	for _, policyType := range spec.PolicyTypes {
		text = appendText(text, 't', string(policyType))
	}
	for _, rule := range spec.Egress {
		text = append(text, 'e')
		for _, port := range rule.Ports {
			text = appendPort(text, port)
		}
		for _, peer := range rule.To {
			text = appendPeer(text, peer)
		}
	}
	if len(spec.Ingress) > 0 {
		text = appendJSON(text, 'i', spec.Ingress)
	}
	digest := sha256.Sum256(text)
	return hex.EncodeToString(digest[:])
}

func appendPort(text []byte, port networkingv1.NetworkPolicyPort) []byte {
	text = append(text, 'p')
	if port.Protocol != nil {
		text = appendText(text, 'l', string(*port.Protocol))
	}
	switch {
	case port.Port == nil:
	case port.Port.Type == intstr.Int:
		text = strconv.AppendInt(append(text, 'n'), int64(port.Port.IntVal), 10)
	default:
		text = appendText(text, 'a', port.Port.StrVal)
	}
	if port.EndPort != nil {
		text = strconv.AppendInt(append(text, 'm'), int64(*port.EndPort), 10)
	}
	return text
}

func appendPeer(text []byte, peer networkingv1.NetworkPolicyPeer) []byte {
	text = append(text, 'r')
	if peer.IPBlock != nil {
		text = appendText(text, 'c', peer.IPBlock.CIDR)
		for _, except := range peer.IPBlock.Except {
			text = appendText(text, 'x', except)
		}
	}
	text = appendSelector(text, 'o', peer.PodSelector)
	return appendSelector(text, 'w', peer.NamespaceSelector)
}

// appendSelector appends no text if selector is nil, because a nil selector selects nothing. An empty selector selects
// everything, and appendSelector appends the tag.
func appendSelector(text []byte, tag byte, selector *metav1.LabelSelector) []byte {
	if selector == nil {
		return text
	}
	text = append(text, tag, '*')
	keys := slices.AppendSeq(make([]string, 0, 4), maps.Keys(selector.MatchLabels))
	slices.Sort(keys)
	for _, key := range keys {
		text = appendText(appendText(text, 'k', key), 'v', selector.MatchLabels[key])
	}
	if len(selector.MatchExpressions) > 0 {
		text = appendJSON(text, 'q', selector.MatchExpressions)
	}
	return text
}

func appendJSON(text []byte, tag byte, value any) []byte {
	encoded, err := json.Marshal(value)
	if err != nil {
		panic(err) // strings, numbers and their lists always encode
	}
	return appendText(text, tag, string(encoded))
}

// appendText appends the length before the text, so a reader cannot mistake the end of the text for the next value.
func appendText(text []byte, tag byte, value string) []byte {
	text = strconv.AppendInt(append(text, tag), int64(len(value)), 10)
	return append(append(text, ':'), value...)
}
