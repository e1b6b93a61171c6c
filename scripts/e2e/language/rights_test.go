package language

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"egress-agent/scripts/e2e/harness"
)

// TestCompanionsNeedEachRight removes each right of the deploy components with objects beside NetworkPolicies, and
// requires that the agent needs it.
func TestCompanionsNeedEachRight(t *testing.T) {
	harness.SkipUnlessAll(t)
	createDefinition(t, "serviceentries.networking.istio.io", "istio.io/api", "kubernetes", "customresourcedefinitions.gen.yaml")
	createDefinition(t, "reports.openreports.io", "github.com/openreports/reports-api", "config", "crd", "openreports.io_reports.yaml")
	createDefinitionFile(t, "applicationnetworkpolicies.networking.k8s.aws")
	createDefinitionFile(t, "ciliumnetworkpolicies.cilium.io")
	harness.CreateNamespace(t, "rights")
	harness.Control(t)
	count := 0
	for component, flag := range map[string]string{
		"reports": "--reports", "service-entries": "--service-entries",
		"domains-applicationnetworkpolicy": "--domains=applicationnetworkpolicy", "domains-cilium": "--domains=cilium",
	} {
		grant(t, component)
		granted := clusterRoleOf(t, component)
		require.Len(t, granted.Rules, 1)
		resource := granted.Rules[0].Resources[0]
		setVerbs := func(verbs []string) {
			changed := granted.DeepCopy()
			changed.Rules[0].Verbs = verbs
			_, err := harness.Control(t).Admin.RbacV1().ClusterRoles().Update(t.Context(), changed, metav1.UpdateOptions{})
			require.NoError(t, err)
		}
		verbs := granted.Rules[0].Verbs
		for _, verb := range append([]string{""}, verbs...) {
			count++
			t.Run(component+" without "+verb, func(t *testing.T) {
				setVerbs(slices.DeleteFunc(slices.Clone(verbs), func(v string) bool { return v == verb }))
				harness.TryKubectl(t, "", "delete", resource, "-n", "rights", "--all")
				agent := harness.StartAgentWithRanges(t, flag)
				changes := 0
				changeEverything := func() {
					changes++
					document := `{"allowedDestinations": []}`
					if changes%3 > 0 {
						document = fmt.Sprintf(`{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [%d]}`, 1000+changes)
						if strings.HasPrefix(flag, "--domains") {
							document += fmt.Sprintf(`, {"name": "api", "domain": "api.example.com", "ports": [%d]}`, 1000+changes)
						}
						document += `]}`
					}
					if changes%6 == 0 {
						harness.Kubectl(t, "", "delete", "configmap", "-n", "rights", "egress")
					} else {
						harness.Kubectl(t, harness.PolicyManifest("rights", "egress", document), "apply", "-f", "-")
					}
				}
				missed := fmt.Sprintf(`cannot %s resource \"%s\"`, verb, resource)
				if verb != "" {
					harness.Eventually(t, missed, func() bool { changeEverything(); return strings.Contains(agent.Log(t), missed) })
					return
				}
				for range 12 {
					changeEverything()
				}
				harness.AwaitQuiet(t)
				require.Contains(t, agent.Log(t), "companions begin")
				require.NotContains(t, agent.Log(t), "forbidden")
			})
		}
		setVerbs(verbs)
	}
	require.Equal(t, 4*(1+5), count)
}

// clusterRoleOf returns the ClusterRole of a deploy component.
func clusterRoleOf(t *testing.T, component string) *rbacv1.ClusterRole {
	file, err := os.Open(harness.Root + "/deploy/components/" + component + "/rbac.yaml")
	require.NoError(t, err)
	defer file.Close()
	role := &rbacv1.ClusterRole{}
	require.NoError(t, yaml.NewYAMLOrJSONDecoder(file, 4096).Decode(role))
	return role
}
