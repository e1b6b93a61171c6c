package cli

import (
	"io"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

// Platform has the platform documents of --platform, and the namespaces whose labels the files give.
type Platform struct {
	Documents  []netpol.PlatformDocument // sorted by name
	namespaces map[string]labels.Set
	guardrails map[string]*netpol.Guardrails // results by the names of documents
}

// openPlatform reads the files of --platform. It adds the namespaces of those files to the namespaces of the policies'
// files. If the status is not ExitOK, it has printed the reason.
func (i *Input) openPlatform(program string, files []string, stdin io.Reader, stderr Output) int {
	i.Platform = &Platform{namespaces: i.Namespaces, guardrails: make(map[string]*netpol.Guardrails)}
	if len(files) == 0 {
		if len(i.Platforms) > 0 && len(i.Sources) > 0 {
			stderr.Line("%s: note: a platform document; give it with --platform to judge policies by it", i.Platforms[0])
		}
		return ExitOK
	}
	read := readFiles(files, stdin, stderr)
	status := read.ReportUnread(stderr, program, ExitOK)
	maps.Copy(i.Platform.namespaces, read.Namespaces)
	found := make(map[string]Source)
	for _, source := range read.platformSources() {
		name := source.ConfigMap.Name
		if first, isDuplicate := found[name]; isDuplicate {
			stderr.Line("%s: the platform document %s is also in %s", source, name, first.File)
			status = ExitUsage
			continue
		}
		found[name] = source
		document, _, problems := netpol.CompilePlatform(source.ConfigMap, i.plainInputs())
		if problems != nil {
			stderr.Problems(source, "", problems)
			status = max(status, ExitInvalid)
			continue
		}
		i.Platform.Documents = append(i.Platform.Documents, document)
	}
	if len(found) == 0 && status == ExitOK {
		stderr.Line("%s: --platform: no platform document found: no ConfigMap has the label %s: %s", program, policy.Label, platform.LabelValue)
		return ExitUsage
	}
	slices.SortFunc(i.Platform.Documents, func(a, b netpol.PlatformDocument) int { return strings.Compare(a.Name, b.Name) })
	i.noteUnknownNamespaces(program, stderr)
	return status
}

// platformSources returns the platform documents that were read: ConfigMaps, and bare platform.json.
func (r *ReadResult) platformSources() []Source {
	sources := slices.Clone(r.Platforms)
	for _, source := range r.Sources {
		if source.IsBarePolicy() {
			source.key = platform.Key
			source.ConfigMap = &corev1.ConfigMap{ObjectMeta: source.ConfigMap.ObjectMeta, Data: map[string]string{platform.Key: source.ConfigMap.Data[policy.Key]}}
			sources = append(sources, source)
		}
	}
	return sources
}

// noteUnknownNamespaces tells of policies whose namespace has no manifest among the files, if a document selects by
// labels.
func (i *Input) noteUnknownNamespaces(program string, stderr Output) {
	if !slices.ContainsFunc(i.Platform.Documents, func(d netpol.PlatformDocument) bool { return !d.GovernsAll() }) {
		return
	}
	unknown := make(map[string]bool)
	for _, source := range i.Sources {
		namespace := source.ConfigMap.Namespace
		if _, isKnown := i.Platform.namespaces[namespace]; !isKnown && !netpol.IsExempt(namespace, netpol.DefaultNamespace) {
			unknown[namespace] = true
		}
	}
	for _, namespace := range slices.Sorted(maps.Keys(unknown)) {
		stderr.Line("%s: note: no file has the Namespace %q, so only platform documents for every namespace judge its policies; give its manifest with -f", program, namespace)
	}
}

// Governing returns the documents that govern a namespace, sorted by name. A namespace without a manifest is governed by
// the documents for every namespace.
func (p *Platform) Governing(namespace string) []netpol.PlatformDocument {
	if netpol.IsExempt(namespace, netpol.DefaultNamespace) {
		return nil
	}
	set, isKnown := p.namespaces[namespace]
	var governing []netpol.PlatformDocument
	for _, document := range p.Documents {
		if isKnown && document.Governs(set) || !isKnown && document.GovernsAll() {
			governing = append(governing, document)
		}
	}
	return governing
}

// Namespaces returns the namespaces whose manifests the files have, sorted.
func (p *Platform) Namespaces() []string { return slices.Sorted(maps.Keys(p.namespaces)) }

// plainInputs returns the inputs for a policy that no guardrails limit.
func (i *Input) plainInputs() netpol.Inputs {
	return netpol.Inputs{Table: i.Table, Options: i.Options, Now: i.Now}
}

// BaseInputs returns the inputs for the base of a platform document.
func (i *Input) BaseInputs(document string) netpol.Inputs {
	in := i.plainInputs()
	in.Origin = netpol.Origin{Kind: netpol.Base, Source: netpol.DefaultNamespace + "/" + document}
	return in
}

// Inputs returns the inputs for a policy of a namespace.
func (i *Input) Inputs(namespace string) netpol.Inputs {
	in := i.plainInputs()
	documents := i.Platform.Governing(namespace)
	if len(documents) == 0 {
		return in
	}
	names := ""
	for _, document := range documents {
		names += " " + document.Name
	}
	guardrails, isKnown := i.Platform.guardrails[names]
	if !isKnown {
		guardrails = netpol.NewGuardrails(documents, i.Table, i.Options.Family)
		i.Platform.guardrails[names] = guardrails
	}
	in.Guardrails = guardrails
	return in
}

// ReportUnresolved prints the destinations of a compiled policy whose addresses are unknown, and that the command
// therefore leaves out. subject is the policy. It returns ExitUsage if a ranges document would make them known.
func ReportUnresolved(subject string, compiled *netpol.Compiled, stderr Output) (status int) {
	for _, name := range compiled.Unresolved {
		isEntity := func(d policy.Destination) bool { return d.Name == name && d.Entity != "" }
		if slices.ContainsFunc(compiled.Policy.Destinations, isEntity) {
			stderr.Line("%s: note: %s is left out: only the agent knows the addresses of the API server", subject, name)
			continue
		}
		stderr.Line("%s: %s is left out: no AWS ranges are loaded; give --ranges-file", subject, name)
		status = ExitUsage
	}
	return status
}

// Compile compiles a policy of the files. What the platform documents refuse is a problem, as at admission.
func (i *Input) Compile(source Source) (compiled *netpol.Compiled, problems policy.Problems) {
	compiled = netpol.CompileConfigMap(source.ConfigMap, i.Inputs(source.ConfigMap.Namespace))
	if compiled.Problems != nil {
		return compiled, compiled.Problems
	}
	return compiled, compiled.Refusals(nil)
}
