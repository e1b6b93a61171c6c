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
	at := func(key string) string { return `metadata.annotations["` + key + `"]` }
	for _, test := range []struct {
		name, object        string
		labels, annotations map[string]string
		path, says          string // no warning where the path is empty
	}{
		{name: "ordinary", object: "egress", annotations: map[string]string{"argocd.argoproj.io/tracking-id": "a", "meta.helm.sh/release-name": "b"}},
		{name: "hash", object: "egress-9bc7dm28fk", path: "metadata.name", says: "disableNameSuffixHash: true"},
		{name: "a letter no hash has", object: "egress-9bc7dm28fa"},
		{name: "eleven characters", object: "egress-9bc7dm28fkk"},
		{name: "nothing before", object: "9bc7dm28fk"},
		{name: "pruned last", object: "egress-9bc7dm28fk", annotations: map[string]string{options: "Validate=false, PruneLast=true"}},
		{name: "never pruned", object: "egress-9bc7dm28fk", annotations: map[string]string{options: "Prune=false"}},
		{name: "replaced by force", annotations: map[string]string{options: "Replace=true,Force=true"}, path: at(options), says: "deletes the ConfigMap and creates it again at every sync"},
		{name: "replaced", annotations: map[string]string{options: "Validate=false, Replace=true"}, path: at(options), says: "replaces the ConfigMap whole"},
		{name: "forced", annotations: map[string]string{options: "Force=true"}, path: at(options), says: "where it cannot be patched"},
		{name: "neither", annotations: map[string]string{options: "Replace=false,ServerSideApply=true"}},
		{name: "Flux", annotations: map[string]string{"kustomize.toolkit.fluxcd.io/force": "Enabled"}, path: at("kustomize.toolkit.fluxcd.io/force"), says: "Flux deletes the ConfigMap"},
		{name: "Flux, by a label", labels: map[string]string{"kustomize.toolkit.fluxcd.io/force": "enabled"}, path: `metadata.labels["kustomize.toolkit.fluxcd.io/force"]`, says: "Flux"},
		{name: "Flux, off", annotations: map[string]string{"kustomize.toolkit.fluxcd.io/force": "disabled"}},
		{name: "hook", annotations: map[string]string{hook: "pre-upgrade"}, path: at(hook), says: "deletes and creates again at each run"},
		{name: "hook that is deleted", annotations: map[string]string{hook: "pre-upgrade", "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded"}, path: at(hook), says: "stays open"},
		{name: "hook of a test", annotations: map[string]string{hook: "test"}, path: at(hook), says: "does not apply"},
		{name: "Argo's hook", annotations: map[string]string{"argocd.argoproj.io/hook": "PreSync", "argocd.argoproj.io/hook-delete-policy": "HookSucceeded"}, path: at("argocd.argoproj.io/hook"), says: "Argo CD deletes the ConfigMap as soon as it is applied"},
	} {
		t.Run(test.name, func(t *testing.T) {
			found := policy.ObjectWarnings(test.object, test.labels, test.annotations)
			if test.path == "" {
				require.Empty(t, found)
				return
			}
			require.Len(t, found, 1)
			require.Equal(t, test.path, found[0].Path)
			require.Contains(t, found[0].Message, test.says)
			if key, annotated := strings.CutPrefix(test.path, `metadata.annotations["`); annotated {
				require.Contains(t, found[0].Message, strings.TrimSuffix(key, `"]`), "it names the annotation")
			}
			require.LessOrEqual(t, utf8.RuneCountInString(found[0].String()), 256, found[0].String())
		})
	}
	all := policy.ObjectWarnings("egress-9bc7dm28fk", nil, map[string]string{options: "Replace=true", hook: "test", "kustomize.toolkit.fluxcd.io/force": "enabled"})
	require.Len(t, all, 4)
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
