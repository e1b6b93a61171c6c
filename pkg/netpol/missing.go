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

// missing returns the problem of a ConfigMap without policy.json. The message also names a similar key, if there is
// one, and what to do.
func missing(configMap *corev1.ConfigMap) policy.Problem {
	message := "Missing field: " + policy.Key
	if data, given := configMap.BinaryData[policy.Key]; given {
		message += "; it is in binaryData" + encoding(data)
	} else if key := nearKey(configMap); key != "" {
		message += fmt.Sprintf("; the agent does not read the key %s: rename it to %s, and write JSON", policy.Sanitize(key), policy.Key)
	}
	return policy.Problem{Message: message, Path: "data"}
}

// encoding returns the end of a message: why a file is in binaryData, and what to do. kubectl puts a file there if it
// is not UTF-8 (https://github.com/kubernetes/kubectl/blob/master/pkg/cmd/create/create_configmap.go). Windows
// PowerShell writes UTF-16 by default
// (https://learn.microsoft.com/powershell/module/microsoft.powershell.core/about/about_character_encoding).
func encoding(data []byte) string {
	const save = ": save the file as UTF-8 without a byte order mark, in PowerShell with Set-Content -Encoding ascii"
	const start = 64 // bytes are enough to recognize UTF-16
	head := data[:min(len(data), start)]
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return ", because it is not UTF-8 but UTF-16 with a byte order mark" + save
	case bytes.Count(head, []byte{0}) >= len(head)/2 && len(head) > 1:
		return ", because it is not UTF-8 but UTF-16" + save
	case !utf8.Valid(data):
		return ", because it is not UTF-8" + save
	}
	return ", which the agent does not read: move it to data, as text"
}

// nearKey returns the key that the user probably intended as policy.json, such as Policy.json or policy.yaml, or "". It
// does not search a ConfigMap with more than 100 keys, because such a ConfigMap has another purpose.
func nearKey(configMap *corev1.ConfigMap) string {
	const most = 100
	if len(configMap.Data)+len(configMap.BinaryData) > most {
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
