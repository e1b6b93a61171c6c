package netpol

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

// CompilePlatform parses and checks the document of a platform ConfigMap. Admission, the agent and every command call
// it, so all accept the same documents. A base that the dataplane could not enforce is also a problem, and so is a
// destination of the base that has expired at Inputs.Now: the agent, which applies the rest, does not set Now. Warnings
// are as in Compiled; they are about the base. Exactly one of document.Document and problems is nil.
func CompilePlatform(configMap *corev1.ConfigMap, in Inputs) (document PlatformDocument, warnings, problems policy.Problems) {
	document.Name = configMap.Name
	data, ok := configMap.Data[platform.Key]
	if !ok {
		return document, nil, policy.Problems{{Path: "data", Message: "Missing field: " + platform.Key}}
	}
	document.Document, problems = platform.Parse([]byte(data), policy.Names{AWS: NameCheck(in.Table), Domain: in.Options.Domains.check})
	if problems != nil {
		return document, nil, problems
	}
	if document.Base != nil {
		compiled := compilePolicy(document.Base, in)
		if problems := append(compiled.Problems, compiled.Refusals(nil)...); problems != nil {
			document.Document = nil
			return document, nil, problems
		}
		warnings = compiled.Warnings
	}
	return document, warnings, nil
}

// compilePolicy compiles the base of a platform document, without guardrails.
func compilePolicy(p *policy.Policy, in Inputs) *Compiled {
	c := &Compiled{Policy: p, options: in.Options, now: in.Now}
	in.Guardrails = nil
	var warnings policy.Warnings
	policy.Warn(p, &warnings)
	c.compile(in, &warnings)
	return c
}

// SnapshotDocuments returns the documents of a snapshot by name, and the problems of those that it leaves out: the agent
// found them valid, with other ranges or in another version.
func SnapshotDocuments(snapshot platform.Snapshot, in Inputs) (documents map[string]PlatformDocument, ignored map[string]policy.Problems) {
	documents, ignored = make(map[string]PlatformDocument), make(map[string]policy.Problems)
	for name, text := range snapshot.Documents {
		document, _, problems := CompilePlatform(&corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{platform.Key: string(text)},
		}, in)
		if problems != nil {
			ignored[name] = problems
			continue
		}
		documents[name] = document
	}
	return documents, ignored
}

// GoverningNames returns the names of the documents of a snapshot that govern a namespace, sorted. Documents for every
// namespace govern one that the agent did not know when it made the snapshot. documents is the result of
// SnapshotDocuments.
func GoverningNames(snapshot platform.Snapshot, documents map[string]PlatformDocument, namespace string) []string {
	names, isKnown := snapshot.Namespaces[namespace]
	if isKnown {
		return names
	}
	for _, name := range slices.Sorted(maps.Keys(documents)) {
		if documents[name].GovernsAll() {
			names = append(names, name)
		}
	}
	return names
}

// GoverningDocuments returns the documents of GoverningNames, without those that SnapshotDocuments ignored.
func GoverningDocuments(snapshot platform.Snapshot, documents map[string]PlatformDocument, namespace string) []PlatformDocument {
	var governing []PlatformDocument
	for _, name := range GoverningNames(snapshot, documents, namespace) {
		if document, ok := documents[name]; ok {
			governing = append(governing, document)
		}
	}
	return governing
}

// Requirement is the Guardrail of a Violation for a field that a policy lacks, or for a date that is too late.
const Requirement = "require"

// MissingFields returns a Violation for each field that documents require and a policy lacks, and for each destination that
// expires too late.
func MissingFields(documents []PlatformDocument, p *policy.Policy, now time.Time) []Violation {
	var missing []Violation
	for _, document := range documents {
		missing = append(missing, (&documentGuardrails{PlatformDocument: document}).missing(p, now)...)
	}
	return missing
}
