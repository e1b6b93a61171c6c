package policy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"egress-agent/pkg/internal/nearest"
)

// Annotations that make a tool delete a ConfigMap that it applies. The Flux key may also be a label.
const (
	argoOptions  = "argocd.argoproj.io/sync-options" // https://argo-cd.readthedocs.io/en/stable/user-guide/sync-options/
	argoHook     = "argocd.argoproj.io/hook"         // https://argo-cd.readthedocs.io/en/stable/user-guide/resource_hooks/
	argoDeletion = "argocd.argoproj.io/hook-delete-policy"
	fluxForce    = "kustomize.toolkit.fluxcd.io/force" // https://fluxcd.io/flux/components/kustomize/kustomizations/#force
	helmHook     = "helm.sh/hook"                      // https://helm.sh/docs/topics/charts_hooks/
	helmDeletion = "helm.sh/hook-delete-policy"
)

// ObjectWarnings returns a warning for each setting that makes a tool delete and recreate a policy ConfigMap, or create
// it under another name. While the ConfigMap is absent, nothing restricts the namespace's pods. Paths are in the
// ConfigMap, such as metadata.name. A warning has at most 256 characters. ObjectWarnings returns nil if the ConfigMap
// has no such setting.
func ObjectWarnings(name string, labels, annotations map[string]string) Problems {
	var warnings Problems
	warn := func(path, format string, args ...any) {
		warnings = append(warnings, Problem{Message: fmt.Sprintf(format, args...), Path: path})
	}
	options := parseOptions(annotations[argoOptions])
	if WithoutHash(name) != name && options["PruneLast"] != "true" && options["Prune"] != "false" {
		warn("metadata.name", "the name ends in a kustomize hash, so each edit creates a new ConfigMap; if the new one is refused and the old one is pruned, "+
			"the namespace is open: set disableNameSuffixHash: true or, with Argo CD, PruneLast=true")
	}
	annotationPath := func(key string) string { return fmt.Sprintf("metadata.annotations[%q]", key) }
	switch replace, force := options["Replace"] == "true", options["Force"] == "true"; {
	case replace && force:
		warn(annotationPath(argoOptions), "%s: with Replace=true and Force=true, Argo CD deletes and recreates the ConfigMap at every sync, and the namespace is open in between; remove both options", argoOptions)
	case replace:
		warn(annotationPath(argoOptions), "%s: with Replace=true, Argo CD replaces the ConfigMap; if the Application has Force=true, it first deletes the ConfigMap, which opens the namespace; remove the option", argoOptions)
	case force:
		warn(annotationPath(argoOptions), "%s: with Force=true, Argo CD deletes and recreates the ConfigMap if it cannot patch it, and the namespace is open in between; remove the option", argoOptions)
	}
	if strings.EqualFold(annotations[fluxForce], "enabled") || strings.EqualFold(labels[fluxForce], "enabled") {
		path := annotationPath(fluxForce)
		if annotations[fluxForce] == "" {
			path = fmt.Sprintf("metadata.labels[%q]", fluxForce)
		}
		warn(path, "%s: if the ConfigMap is immutable and changes, Flux deletes and recreates it, and the namespace is open in between; remove this key", fluxForce)
	}
	if hook, given := annotations[helmHook]; given {
		warn(annotationPath(helmHook), "%s: %s; remove the annotation", helmHook, describeHook("Helm", annotations[helmDeletion], hook == "test"))
	}
	if hook, given := annotations[argoHook]; given {
		warn(annotationPath(argoHook), "%s: %s; remove the annotation", argoHook, describeHook("Argo CD", annotations[argoDeletion], hook == "Skip"))
	}
	return warnings
}

// describeHook describes how a tool, Helm or Argo CD, treats a ConfigMap that is a hook. isSkipped means that the tool
// does not apply the hook with the other objects. deletePolicy is a list of words, such as hook-succeeded for Helm and
// HookSucceeded for Argo CD. If it is empty, the tool deletes the hook before the hook's next run.
func describeHook(tool, deletePolicy string, isSkipped bool) string {
	normalized := strings.ToLower(strings.ReplaceAll(deletePolicy, "-", ""))
	switch {
	case isSkipped:
		return tool + " does not apply the ConfigMap with the other objects, so the namespace may stay open"
	case strings.Contains(normalized, "hooksucceeded"):
		return tool + " deletes the ConfigMap as soon as it is applied, because the hook is then complete, and the namespace stays open"
	}
	return tool + " treats the ConfigMap as a hook and deletes and recreates it at each run, and the namespace is open in between"
}

// parseOptions parses a list of options such as Replace=true, with commas between the options.
func parseOptions(text string) map[string]string {
	options := make(map[string]string)
	for _, option := range strings.Split(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(option), "=")
		options[name] = value
	}
	return options
}

// kustomizeHash matches a name with the hash that kustomize appends to generated ConfigMaps. The hash has ten
// characters. kustomize uses no character that could form words or that looks like another character
// (https://github.com/kubernetes-sigs/kustomize/blob/master/api/hasher/hasher.go).
var kustomizeHash = regexp.MustCompile(`^(.+)-[bcdfghkmt2456789]{10}$`)

// WithoutHash returns an object's name without kustomize's hash. It returns a name without a hash unchanged.
func WithoutHash(name string) string {
	if match := kustomizeHash.FindStringSubmatch(name); match != nil {
		return match[1]
	}
	return name
}

// NearLabel finds a label or an annotation that its author probably meant as the label Label=LabelValue. It returns a
// description such as "the label egress-controler: managed", and the path. The description and the path are empty if no
// key is similar. The caller must first check that the ConfigMap does not have the correct label.
func NearLabel(labels, annotations map[string]string) (description, path string) {
	for _, group := range []struct {
		kind, field string
		values      map[string]string
	}{{"label", "labels", labels}, {"annotation", "annotations", annotations}} {
		for _, key := range slices.Sorted(maps.Keys(group.values)) {
			if isNearLabel(key) {
				return fmt.Sprintf("the %s %s: %s", group.kind, Sanitize(key), Sanitize(group.values[key])), fmt.Sprintf("metadata.%s[%q]", group.field, key)
			}
		}
	}
	return "", ""
}

// isNearLabel reports whether key differs from Label only by typing errors, by a prefix, or because key also contains
// the value. It returns false for the annotations that the programs write: their prefix is Label, but their names
// differ.
func isNearLabel(key string) bool {
	prefix, name, hasPrefix := strings.Cut(key, "/")
	if !hasPrefix {
		name = prefix
	}
	name, _, _ = strings.Cut(strings.NewReplacer("_", "-", ".", "-", " ", "-").Replace(name), "=")
	return nearest.Name(name, []string{Label}) != "" && name != "" || hasPrefix && prefix == Label && strings.EqualFold(name, LabelValue)
}
