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

// missing says that a ConfigMap has no policy.json, and what it has in its place.
func missing(configMap *corev1.ConfigMap) policy.Problem {
	message := "Missing field: " + policy.Key
	if data, given := configMap.BinaryData[policy.Key]; given {
		message += "; it is in binaryData" + encoding(data)
	} else if key := nearKey(configMap); key != "" {
		message += fmt.Sprintf("; the key %s is not read: name it %s, and write JSON", policy.Sanitize(key), policy.Key)
	}
	return policy.Problem{Message: message, Path: "data"}
}

// encoding says why kubectl has put a file into binaryData, which it does with what is no UTF-8
// (https://github.com/kubernetes/kubectl/blob/master/pkg/cmd/create/create_configmap.go), and what to do. Windows
// PowerShell writes UTF-16 by default
// (https://learn.microsoft.com/powershell/module/microsoft.powershell.core/about/about_character_encoding).
func encoding(data []byte) string {
	const save = ": save the file as UTF-8 without a byte order mark, in PowerShell with Set-Content -Encoding ascii"
	const start = 64 // bytes by which UTF-16 is told
	head := data[:min(len(data), start)]
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return ", since it is not UTF-8 but UTF-16 with a byte order mark" + save
	case bytes.Count(head, []byte{0}) >= len(head)/2 && len(head) > 1:
		return ", since it is not UTF-8 but UTF-16" + save
	case !utf8.Valid(data):
		return ", since it is not UTF-8" + save
	}
	return ", which is not read: move it to data, as text"
}

// nearKey returns the key that was meant as policy.json, such as Policy.json or policy.yaml; empty if there is none.
// A ConfigMap of very many keys was meant for something else.
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
