package language

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/scripts/e2e/harness"
)

// createDefinitionFile creates a CustomResourceDefinition of testdata.
func createDefinitionFile(t *testing.T, name string) {
	file := "testdata/" + strings.SplitN(name, ".", 2)[0] + ".yaml"
	harness.Control(t)
	harness.Kubectl(t, "", "create", "-f", file)
	t.Cleanup(func() { harness.TryKubectl(t, "", "delete", "crd", name) })
	harness.Kubectl(t, "", "wait", "--for=condition=Established", "crd/"+name)
}

// TestAgentOpensDomains follows the object that opens the names of a policy, for each kind: made, repaired, changed, and
// gone with the names, with the expiry, and with the policy.
func TestAgentOpensDomains(t *testing.T) {
	for kind, test := range map[string]struct{ definition, domains, edit, edited string }{
		"applicationnetworkpolicy": {"applicationnetworkpolicies.networking.k8s.aws", `{.spec.egress[*].to[*].domainNames}`,
			`{"spec": {"egress": [{}]}}`, `["*.example.org","api.example.com"]`},
		"cilium": {"ciliumnetworkpolicies.cilium.io", `{.spec.egress[*].toFQDNs}`,
			`{"spec": {"egress": [{"toCIDR": ["0.0.0.0/0"]}]}}`, `[{"matchPattern":"**.example.org"},{"matchName":"api.example.com"}]`},
	} {
		t.Run(kind, func(t *testing.T) {
			if kind == "cilium" {
				harness.SkipUnlessAll(t) // the other kind takes the same way
			}
			createDefinitionFile(t, test.definition)
			grant(t, "domains-"+kind)
			namespace, flag := "names-"+kind[:6], "--domains="+kind
			agent := harness.StartAgentWithRanges(t, flag)
			harness.CreateNamespace(t, namespace)
			const v1 = `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}, {"name": "api", "domain": "api.example.com", "ports": [443]}, {"name": "org", "domain": "*.example.org", "ports": [443]}]}`
			apply := func(document string) {
				t.Helper()
				harness.Kubectl(t, harness.PolicyManifest(namespace, "egress", document), "apply", "-f", "-")
			}
			domains := func(want string) {
				t.Helper()
				harness.Eventually(t, "the names "+want, func() bool {
					got, _, _ := harness.TryKubectl(t, "", "get", test.definition, "-n", namespace, "egress", "-o", "jsonpath="+test.domains)
					return got == want
				})
			}
			none := func() {
				t.Helper()
				harness.Eventually(t, "no names", func() bool { return len(get(t, test.definition, namespace)) == 0 })
			}
			apply(v1)
			domains(test.edited)
			harness.Kubectl(t, "", "patch", test.definition, "-n", namespace, "egress", "--type=merge", "-p", test.edit)
			domains(test.edited)
			harness.Kubectl(t, "", "delete", test.definition, "-n", namespace, "egress")
			domains(test.edited)
			harness.Kubectl(t, "", "annotate", "networkpolicy", "-n", namespace, "egress", "--overwrite", `egress-controller/domains=[{"domains":["evil.example.net"]}]`)
			harness.AwaitNetworkPolicy(t, namespace, "egress", "restored", func(p *networkingv1.NetworkPolicy) bool {
				return !strings.Contains(p.Annotations["egress-controller/domains"], "evil")
			})
			domains(test.edited)

			// The same as render prints, for which the schema has a place for every field.
			rendered, err := exec.Command(harness.Binary(t, "egress-agent"), "render", "-f", writeManifest(t, namespace, v1), flag).Output()
			require.NoError(t, err)
			harness.Kubectl(t, string(rendered), "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-")
			spec := func(args ...string) string {
				return harness.Kubectl(t, string(rendered), append(args, "-o", "jsonpath={.kind}{.spec}")...)
			}
			require.Contains(t, spec("create", "--dry-run=client", "--validate=false", "-f", "-"),
				harness.Kubectl(t, "", "get", test.definition, "-n", namespace, "egress", "-o", "jsonpath={.kind}{.spec}"))

			agent.Stop(t)
			mark, err := harness.Control(t).Mark()
			require.NoError(t, err)
			agent = harness.StartAgentWithRanges(t, flag)
			requireIdle(t, mark, strings.SplitN(test.definition, ".", 2)[0])
			apply(`{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`)
			none()
			apply(v1)
			domains(test.edited)
			harness.Kubectl(t, "", "delete", "configmap", "-n", namespace, "egress")
			none()
			agent.Stop(t)

			// Without the flag, a name is refused with the reason, and opens nothing.
			harness.StartAgentWithRanges(t)
			apply(v1)
			harness.AwaitEventOn(t, namespace, "ConfigMap", "egress", "Invalid", func(e corev1.Event) bool {
				return strings.Contains(e.Message, "Invalid domain: api.example.com; a NetworkPolicy has no names, and the platform has not turned on --domains")
			})
			require.Empty(t, get(t, test.definition, namespace))
		})
	}
}

// writeManifest writes a policy ConfigMap to a file, and returns its path.
func writeManifest(t *testing.T, namespace, document string) string {
	file := t.TempDir() + "/policy.yaml"
	require.NoError(t, os.WriteFile(file, []byte(harness.PolicyManifest(namespace, "egress", document)), 0o600))
	return file
}
