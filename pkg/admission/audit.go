package admission

import (
	"crypto/sha256"
	"encoding/hex"

	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/audit"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/platform"
)

// auditEntry returns the audit entry of a request that Review allowed. ok is false if the request changes no document,
// or is a dry run. It compiles both versions, so it takes about twice the time of Review.
func auditEntry(request *Request, response *Response, rules Rules) (e audit.Entry, ok bool) {
	object, old := request.Object, request.OldObject
	if request.Operation == create {
		old = nil
	}
	if !response.Allowed || request.DryRun || object.Metadata.DeletionTimestamp != nil || isUnchanged(old, object) {
		return audit.Entry{}, false
	}
	e = audit.Entry{
		Event: audit.Admitted, Namespace: request.Namespace, Name: request.Name, User: request.UserInfo.Username, Groups: len(request.UserInfo.Groups),
		Operation: request.Operation, OldPolicy: documentDigest(old), NewPolicy: documentDigest(object), Warnings: response.Warnings,
	}
	if object.Metadata.Labels.Policy == platform.LabelValue || old != nil && old.Metadata.Labels.Policy == platform.LabelValue {
		e.Unknown = "a platform document: the agent's entries show what it opens and closes"
		return e, true
	}
	e.Change = audit.Compare(madeFrom(old, request, rules), madeFrom(object, request, rules))
	return e, true
}

// documentDigest returns the SHA-256 of the document of a policy or of the platform. It is empty without a document.
func documentDigest(c *ConfigMap) string {
	if c == nil {
		return ""
	}
	document := c.Data.Policy
	if c.Metadata.Labels.Policy == platform.LabelValue {
		document = c.Data.Platform
	} else if !isPolicy(c) {
		document = nil
	}
	if document == nil {
		return ""
	}
	digest := sha256.Sum256([]byte(*document))
	return hex.EncodeToString(digest[:])
}

// madeFrom returns what the agent makes from a version of a policy. It is nil for another object, and for an invalid
// policy, of which the agent keeps the last valid version.
func madeFrom(c *ConfigMap, request *Request, rules Rules) *networkingv1.NetworkPolicy {
	if c == nil || !isPolicy(c) {
		return nil
	}
	in := rules.inputs(request.Namespace)
	in.Options.AllowDNS, in.Options.DNSCIDRs = false, nil // the policy does not ask for DNS
	configMap := c.toConfigMap(request)
	compiled := netpol.CompileConfigMap(configMap, in)
	if compiled.Problems != nil {
		return nil
	}
	return netpol.NetworkPolicyFor(configMap, compiled)
}
