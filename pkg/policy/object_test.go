package policy_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/policy"
)

func TestObjectWarnings(t *testing.T) {
	const options, hook = "argocd.argoproj.io/sync-options", "helm.sh/hook"
	annotationPath := func(key string) string { return `metadata.annotations["` + key + `"]` }
	for _, test := range []struct {
		name, object        string
		labels, annotations map[string]string
		path, message       string // an empty path means no warning; the warning contains message
	}{
		{name: "ordinary", object: "egress", annotations: map[string]string{"argocd.argoproj.io/tracking-id": "a", "meta.helm.sh/release-name": "b"}},
		{name: "hash", object: "egress-9bc7dm28fk", path: "metadata.name", message: "disableNameSuffixHash: true"},
		{name: "letter that a hash cannot have", object: "egress-9bc7dm28fa"},
		{name: "hash of eleven characters", object: "egress-9bc7dm28fkk"},
		{name: "hash without a name", object: "9bc7dm28fk"},
		{name: "PruneLast", object: "egress-9bc7dm28fk", annotations: map[string]string{options: "Validate=false, PruneLast=true"}},
		{name: "no Prune", object: "egress-9bc7dm28fk", annotations: map[string]string{options: "Prune=false"}},
		{name: "Replace and Force", annotations: map[string]string{options: "Replace=true,Force=true"}, path: annotationPath(options), message: "deletes and recreates the ConfigMap at every sync"},
		{name: "Replace", annotations: map[string]string{options: "Validate=false, Replace=true"}, path: annotationPath(options), message: "Argo CD replaces the ConfigMap"},
		{name: "Force", annotations: map[string]string{options: "Force=true"}, path: annotationPath(options), message: "if it cannot patch it"},
		{name: "neither Replace nor Force", annotations: map[string]string{options: "Replace=false,ServerSideApply=true"}},
		{name: "Flux annotation", annotations: map[string]string{"kustomize.toolkit.fluxcd.io/force": "Enabled"}, path: annotationPath("kustomize.toolkit.fluxcd.io/force"), message: "Flux deletes and recreates it"},
		{name: "Flux label", labels: map[string]string{"kustomize.toolkit.fluxcd.io/force": "enabled"}, path: `metadata.labels["kustomize.toolkit.fluxcd.io/force"]`, message: "Flux"},
		{name: "Flux disabled", annotations: map[string]string{"kustomize.toolkit.fluxcd.io/force": "disabled"}},
		{name: "Helm hook", annotations: map[string]string{hook: "pre-upgrade"}, path: annotationPath(hook), message: "deletes and recreates it at each run"},
		{name: "Helm hook that Helm deletes", annotations: map[string]string{hook: "pre-upgrade", "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded"}, path: annotationPath(hook), message: "stays open"},
		{name: "Helm test hook", annotations: map[string]string{hook: "test"}, path: annotationPath(hook), message: "does not apply"},
		{name: "Argo CD hook", annotations: map[string]string{"argocd.argoproj.io/hook": "PreSync", "argocd.argoproj.io/hook-delete-policy": "HookSucceeded"}, path: annotationPath("argocd.argoproj.io/hook"), message: "Argo CD deletes the ConfigMap as soon as it is applied"},
	} {
		t.Run(test.name, func(t *testing.T) {
			warnings := policy.ObjectWarnings(test.object, test.labels, test.annotations)
			if test.path == "" {
				require.Empty(t, warnings)
				return
			}
			require.Len(t, warnings, 1)
			require.Equal(t, test.path, warnings[0].Path)
			require.Contains(t, warnings[0].Message, test.message)
			if key, isAnnotation := strings.CutPrefix(test.path, `metadata.annotations["`); isAnnotation {
				require.Contains(t, warnings[0].Message, strings.TrimSuffix(key, `"]`), "the message must name the annotation")
			}
			require.LessOrEqual(t, utf8.RuneCountInString(warnings[0].String()), 256, warnings[0].String())
		})
	}
	warnings := policy.ObjectWarnings("egress-9bc7dm28fk", nil, map[string]string{options: "Replace=true", hook: "test", "kustomize.toolkit.fluxcd.io/force": "enabled"})
	require.Len(t, warnings, 4)
}

func TestNearLabel(t *testing.T) {
	for _, test := range []struct{ key, value, found string }{
		{"egress-controller", "enabled", "label egress-controller: enabled"},
		{"egress-controller", "Managed", "label egress-controller: Managed"},
		{"egress-controller", "", `label egress-controller: ""`},
		{"egress-controler", "managed", "label egress-controler: managed"},
		{"egress_controller", "managed", "label egress_controller: managed"},
		{"Egress-Controller", "managed", "label Egress-Controller: managed"},
		{"example.com/egress-controller", "managed", "label example.com/egress-controller: managed"},
		{"egress-controller/managed", "true", "label egress-controller/managed: true"},
		{"egress-controller=managed", "", `label egress-controller=managed: ""`},
		{"app", "egress-controller", ""},
		{"egress-controller/refused", "x", ""},
		{"egress", "managed", ""},
		{"", "managed", ""},
	} {
		found, path := policy.NearLabel(map[string]string{"app": "x", test.key: test.value}, nil)
		if test.found == "" {
			require.Empty(t, found, test.key)
			require.Empty(t, path)
			continue
		}
		require.Equal(t, "the "+test.found, found)
		require.Equal(t, `metadata.labels["`+test.key+`"]`, path)
		found, path = policy.NearLabel(nil, map[string]string{test.key: test.value})
		require.Equal(t, "the "+strings.Replace(test.found, "label", "annotation", 1), found)
		require.Equal(t, `metadata.annotations["`+test.key+`"]`, path)
	}
}
