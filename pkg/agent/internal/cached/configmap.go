package cached

import (
	"bytes"
	"encoding/hex"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// reducedMark is an annotation on each reduced ConfigMap. The API server accepts no such key. The informer passes
// listed objects to ReduceConfigMap a second time, and the mark keeps that from reducing them again.
const reducedMark = " slim"

// Reduced ConfigMaps share these maps, which nobody may modify.
var (
	markOnly     = map[string]string{reducedMark: ""}
	policyLabels = map[string]string{policy.Label: policy.LabelValue}
)

// ReduceConfigMap reduces a policy ConfigMap in place and returns it. It keeps the metadata that the agent reads. It
// keeps the policy document, without white space, only if mayHold allows that.
//
// Two fields of the metadata that the agent does not need describe the stored document: GenerateName is its digest, as
// bytes, and Generation its size without white space. PolicyDigest and DocumentSize return them.
func ReduceConfigMap(configMap *corev1.ConfigMap, mayHold func(reduced *corev1.ConfigMap, size, text int) bool) *corev1.ConfigMap {
	if isReduced(configMap) {
		return configMap
	}
	reduced := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: configMap.Namespace, Name: configMap.Name, UID: configMap.UID, ResourceVersion: configMap.ResourceVersion,
		CreationTimestamp: configMap.CreationTimestamp, DeletionTimestamp: configMap.DeletionTimestamp,
		Annotations: markOnly,
	}}
	if configMap.Labels[policy.Label] == policy.LabelValue {
		reduced.Labels = policyLabels
	}
	document, ok := configMap.Data[policy.Key]
	compact, size := policy.Compact(document)
	digest, _ := hex.DecodeString(netpol.PolicyDigestOf(configMap)) // always hexadecimal
	reduced.GenerateName, reduced.Generation = string(digest), int64(size)
	hold := mayHold(&reduced, size, len(compact))
	switch {
	case !ok:
		reduced.BinaryData = binaryHead(configMap.BinaryData)
	case hold && len(configMap.Data) == 1 && compact == document:
		reduced.Data = configMap.Data
	case hold:
		reduced.Data = map[string]string{policy.Key: compact}
	}
	*configMap = reduced
	return configMap
}

// binaryHead returns the head of a policy document in binaryData. From it the compiler sees why the document is there.
func binaryHead(data map[string][]byte) map[string][]byte {
	const headBytes = 64
	binary, ok := data[policy.Key]
	if !ok {
		return nil
	}
	if utf8.Valid(binary) {
		binary = nil
	}
	return map[string][]byte{policy.Key: bytes.Clone(binary[:min(len(binary), headBytes)])}
}

func isReduced(configMap *corev1.ConfigMap) bool {
	_, reduced := configMap.Annotations[reducedMark]
	return reduced
}

// PolicyDigest returns netpol.PolicyDigestOf of the stored ConfigMap, for a full or a reduced one.
func PolicyDigest(configMap *corev1.ConfigMap) string {
	if isReduced(configMap) {
		return hex.EncodeToString([]byte(configMap.GenerateName))
	}
	return netpol.PolicyDigestOf(configMap)
}

// DocumentSize returns how many bytes without white space the stored policy document of a reduced ConfigMap has.
func DocumentSize(reduced *corev1.ConfigMap) int { return int(reduced.Generation) }
