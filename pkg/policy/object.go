package policy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"egress-agent/pkg/internal/nearest"
)

// Annotations of the tools that apply ConfigMaps, and of what they do with one that they would replace.
const (
	argoOptions  = "argocd.argoproj.io/sync-options" // https://argo-cd.readthedocs.io/en/stable/user-guide/sync-options/
	argoHook     = "argocd.argoproj.io/hook"         // https://argo-cd.readthedocs.io/en/stable/user-guide/resource_hooks/
	argoDeletion = "argocd.argoproj.io/hook-delete-policy"
	fluxForce    = "kustomize.toolkit.fluxcd.io/force" // https://fluxcd.io/flux/components/kustomize/kustomizations/#force
	helmHook     = "helm.sh/hook"                      // https://helm.sh/docs/topics/charts_hooks/
	helmDeletion = "helm.sh/hook-delete-policy"
)

// ObjectWarnings warns of what makes tools delete a policy ConfigMap and create it again, or under another name: while
// it is gone, nothing restricts its pods. Paths are in the ConfigMap, as in metadata.name. Messages have at most 256
// characters. It returns nil if there is nothing to warn of.
func ObjectWarnings(name string, labels, annotations map[string]string) Problems {
	var found Problems
	warn := func(path, format string, args ...any) {
		found = append(found, Problem{Message: fmt.Sprintf(format, args...), Path: path})
	}
	options := optionsOf(annotations[argoOptions])
	if WithoutHash(name) != name && options["PruneLast"] != "true" && options["Prune"] != "false" {
		warn("metadata.name", "the name ends in a hash of kustomize's, so each edit is a new ConfigMap; once the old one is pruned, and where the new one is refused, "+
			"the namespace is open: set disableNameSuffixHash: true, or, with Argo CD, PruneLast=true")
	}
	at := func(key string) string { return fmt.Sprintf("metadata.annotations[%q]", key) }
	switch replaces, forces := options["Replace"] == "true", options["Force"] == "true"; {
	case replaces && forces:
		warn(at(argoOptions), "%s: with Replace=true and Force=true Argo CD deletes the ConfigMap and creates it again at every sync, and the namespace is open in between; leave both out", argoOptions)
	case replaces:
		warn(at(argoOptions), "%s: with Replace=true Argo CD replaces the ConfigMap whole, and where the Application has Force=true deletes it first, which opens the namespace; leave it out", argoOptions)
	case forces:
		warn(at(argoOptions), "%s: with Force=true Argo CD deletes the ConfigMap and creates it again where it cannot be patched, and the namespace is open in between; leave it out", argoOptions)
	}
	if strings.EqualFold(annotations[fluxForce], "enabled") || strings.EqualFold(labels[fluxForce], "enabled") {
		path := at(fluxForce)
		if annotations[fluxForce] == "" {
			path = fmt.Sprintf("metadata.labels[%q]", fluxForce)
		}
		warn(path, "%s: Flux deletes the ConfigMap and creates it again where it is immutable and changes, and the namespace is open in between; leave it out", fluxForce)
	}
	if hook, given := annotations[helmHook]; given {
		warn(at(helmHook), "%s: %s; leave it out", helmHook, hookEnd("Helm", annotations[helmDeletion], hook == "test"))
	}
	if hook, given := annotations[argoHook]; given {
		warn(at(argoHook), "%s: %s; leave it out", argoHook, hookEnd("Argo CD", annotations[argoDeletion], hook == "Skip"))
	}
	return found
}

// hookEnd says what a tool does with a hook. Helm's words are hook-succeeded and the like, Argo CD's HookSucceeded.
// Both delete it before its next run where they are not told otherwise.
func hookEnd(tool, deletion string, rests bool) string {
	words := strings.ToLower(strings.ReplaceAll(deletion, "-", ""))
	switch {
	case rests:
		return tool + " does not apply the ConfigMap with the others, so that its namespace may stay open"
	case strings.Contains(words, "hooksucceeded"):
		return tool + " deletes the ConfigMap as soon as it is applied, for it has no more to do as a hook: the namespace stays open"
	}
	return tool + " takes the ConfigMap for a hook, which it deletes and creates again at each run: the namespace is open in between"
}

// optionsOf reads NAME=VALUE, separated by commas.
func optionsOf(text string) map[string]string {
	options := make(map[string]string)
	for _, option := range strings.Split(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(option), "=")
		options[name] = value
	}
	return options
}

// kustomizeHash is what kustomize appends to the names of generated ConfigMaps: ten characters, none of which can
// make a word or be mistaken for another
// (https://github.com/kubernetes-sigs/kustomize/blob/master/api/hasher/hasher.go).
var kustomizeHash = regexp.MustCompile(`^(.+)-[bcdfghkmt2456789]{10}$`)

// WithoutHash returns an object's name without the hash that kustomize appends; the same name if it has none.
func WithoutHash(name string) string {
	if found := kustomizeHash.FindStringSubmatch(name); found != nil {
		return found[1]
	}
	return name
}

// NearLabel returns what a ConfigMap has in place of the label of a policy, such as "label egress-controler: managed",
// and its path. Both are empty if nothing comes near. A ConfigMap that has the label itself is not asked about.
func NearLabel(labels, annotations map[string]string) (found, path string) {
	for _, in := range []struct {
		what, path string
		keys       map[string]string
	}{{"label", "labels", labels}, {"annotation", "annotations", annotations}} {
		for _, key := range slices.Sorted(maps.Keys(in.keys)) {
			if nearLabel(key) {
				return fmt.Sprintf("the %s %s: %s", in.what, Sanitize(key), Sanitize(in.keys[key])), fmt.Sprintf("metadata.%s[%q]", in.path, key)
			}
		}
	}
	return "", ""
}

// nearLabel says whether a key was meant as Label: but for typing mistakes, a prefix, or the value in it. The
// annotations that the programs write have Label for their prefix, and other names.
func nearLabel(key string) bool {
	prefix, name, prefixed := strings.Cut(key, "/")
	if !prefixed {
		name = prefix
	}
	name, _, _ = strings.Cut(strings.NewReplacer("_", "-", ".", "-", " ", "-").Replace(name), "=")
	return nearest.Name(name, []string{Label}) != "" && name != "" || prefixed && prefix == Label && strings.EqualFold(name, LabelValue)
}
