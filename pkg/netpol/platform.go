package netpol

import (
	corev1 "k8s.io/api/core/v1"

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
