package netpol

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"

	"egress-agent/pkg/internal/nearest"
	"egress-agent/pkg/policy"
)

// missingPolicyProblem returns the problem of a ConfigMap without policy.json. If the ConfigMap has a similar key, the
// message names this key and what to do.
func missingPolicyProblem(configMap *corev1.ConfigMap) policy.Problem {
	message := "Missing field: " + policy.Key
	if data, ok := configMap.BinaryData[policy.Key]; ok {
		message += "; it is in binaryData" + binaryDataHint(data)
	} else if key := nearKey(configMap); key != "" {
		message += fmt.Sprintf("; the agent does not read the key %s: rename it to %s, and write JSON", policy.Sanitize(key), policy.Key)
	}
	return policy.Problem{Message: message, Path: "data"}
}

// binaryDataHint returns the end of a message: why a file is in binaryData, and what to do. kubectl puts a file into
// binaryData if the file is not UTF-8
// (https://github.com/kubernetes/kubectl/blob/master/pkg/cmd/create/create_configmap.go). Windows PowerShell writes
// UTF-16 by default
// (https://learn.microsoft.com/powershell/module/microsoft.powershell.core/about/about_character_encoding).
func binaryDataHint(data []byte) string {
	const saveAsUTF8 = ": save the file as UTF-8 without a byte order mark, in PowerShell with Set-Content -Encoding ascii"
	const headSize = 64 // bytes; enough to recognize UTF-16
	head := data[:min(len(data), headSize)]
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return ", because it is not UTF-8 but UTF-16 with a byte order mark" + saveAsUTF8
	case bytes.Count(head, []byte{0}) >= len(head)/2 && len(head) > 1:
		return ", because it is not UTF-8 but UTF-16" + saveAsUTF8
	case !utf8.Valid(data):
		return ", because it is not UTF-8" + saveAsUTF8
	}
	return ", which the agent does not read: move it to data, as text"
}

// MaxSimilarKeys is the number of keys up to which a ConfigMap without policy.json is searched for a similar key. A
// ConfigMap with more keys has another purpose.
const MaxSimilarKeys = 100

// nearKey returns the key that the user probably intended as policy.json, such as Policy.json or policy.yaml, or "".
func nearKey(configMap *corev1.ConfigMap) string {
	if len(configMap.Data)+len(configMap.BinaryData) > MaxSimilarKeys {
		return ""
	}
	keys := append(slices.Sorted(maps.Keys(configMap.Data)), slices.Sorted(maps.Keys(configMap.BinaryData))...)
	for _, key := range keys {
		stem, _, _ := strings.Cut(strings.ToLower(key), ".")
		if stem == "policy" || nearest.Name(key, []string{policy.Key}) != "" {
			return key
		}
	}
	return ""
}
