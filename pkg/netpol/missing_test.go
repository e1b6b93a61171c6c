package netpol_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

func TestMissingPolicyNamesRemedy(t *testing.T) {
	const saveAsUTF8 = ": save the file as UTF-8 without a byte order mark, in PowerShell with Set-Content -Encoding ascii"
	manyKeys := map[string]string{"Policy.json": "{}"}
	for i := range 100 {
		manyKeys[strings.Repeat("a", i+1)] = ""
	}
	for _, test := range []struct {
		name   string
		data   map[string]string
		binary string // policy.json in binaryData
		hint   string // what follows "Missing field: policy.json"
	}{
		{name: "nothing"},
		{name: "another key", data: map[string]string{"application.properties": "a=b"}},
		{name: "UTF-16, little endian", binary: "\xff\xfe{\x00}\x00", hint: "; it is in binaryData, because it is not UTF-8 but UTF-16 with a byte order mark" + saveAsUTF8},
		{name: "UTF-16, big endian", binary: "\xfe\xff\x00{\x00}", hint: "; it is in binaryData, because it is not UTF-8 but UTF-16 with a byte order mark" + saveAsUTF8},
		{name: "UTF-16 without a mark", binary: "{\x00\"\x00a\x00\"\x00}\x00", hint: "; it is in binaryData, because it is not UTF-8 but UTF-16" + saveAsUTF8},
		{name: "Latin-1", binary: "{\"name\": \"caf\xe9\"}", hint: "; it is in binaryData, because it is not UTF-8" + saveAsUTF8},
		{name: "UTF-8", binary: `{"allowedDestinations": []}`, hint: "; it is in binaryData, which the agent does not read: move it to data, as text"},
		{name: "letter case", data: map[string]string{"Policy.json": "{}"}, hint: "; the agent does not read the key Policy.json: rename it to policy.json, and write JSON"},
		{name: "YAML", data: map[string]string{"a": "", "policy.yaml": ""}, hint: "; the agent does not read the key policy.yaml: rename it to policy.json, and write JSON"},
		{name: "typing mistake", data: map[string]string{"polcy.json": "{}"}, hint: "; the agent does not read the key polcy.json: rename it to policy.json, and write JSON"},
		{name: "very many keys", data: manyKeys},
	} {
		t.Run(test.name, func(t *testing.T) {
			configMap := &corev1.ConfigMap{Data: test.data}
			if test.binary != "" {
				configMap.BinaryData = map[string][]byte{policy.Key: []byte(test.binary)}
			}
			compiled := netpol.CompileConfigMap(configMap, netpol.Inputs{})
			require.Nil(t, compiled.Policy)
			require.Equal(t, policy.Problems{{Message: "Missing field: policy.json" + test.hint, Path: "data"}}, compiled.Problems)
		})
	}
}
