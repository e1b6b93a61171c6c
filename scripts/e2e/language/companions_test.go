package language

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/harness"
)

// grant gives the agent the rights of a deploy component, and takes them away when the test ends.
func grant(t *testing.T, component string) {
	file := harness.Root + "/deploy/components/" + component + "/rbac.yaml"
	harness.Kubectl(t, "", "apply", "-f", file)
	t.Cleanup(func() { harness.TryKubectl(t, "", "delete", "-f", file) })
}

// get returns the names of the objects of a kind in a namespace.
func get(t *testing.T, kind, namespace string) []string {
	t.Helper()
	return strings.Fields(strings.ReplaceAll(harness.Kubectl(t, "", "get", kind, "-n", namespace, "-o", "name"), kind+"/", ""))
}

const serviceEntries, reports = "serviceentry.networking.istio.io", "report.openreports.io"

// TestAgentKeepsServiceEntries follows the ServiceEntries of a policy: made, repaired, changed, and gone with it. The
// CustomResourceDefinition comes after the agent.
func TestAgentKeepsServiceEntries(t *testing.T) {
	harness.SkipUnlessAll(t)
	grant(t, "service-entries")
	agent := harness.StartAgentWithRanges(t, "--service-entries")
	harness.CreateNamespace(t, "meshed")
	const v1, v2 = `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}, {"name": "web", "cidr": "10.3.0.0/24", "ports": [443]}]}`, `{"allowedDestinations": [{"name": "web", "cidr": "10.3.0.0/24", "ports": [443, 8443]}]}`
	harness.Kubectl(t, harness.PolicyManifest("meshed", "egress", v1), "apply", "-f", "-")
	harness.AwaitNetworkPolicy(t, "meshed", "egress", "there", harness.Exists)
	require.Equal(t, 1, strings.Count(agent.Log(t), "companions wait for its CustomResourceDefinition"))
	require.Zero(t, agent.Metric(t, `egress_agent_companion_ready{resource="serviceentries"}`))
	agent.Stop(t)
	createDefinition(t, "serviceentries.networking.istio.io", "istio.io/api", "kubernetes", "customresourcedefinitions.gen.yaml")
	agent = harness.StartAgentWithRanges(t, "--service-entries")
	two := []string{"egress-1", "egress-2"}
	harness.Eventually(t, "two ServiceEntries", func() bool { return fmt.Sprint(get(t, serviceEntries, "meshed")) == fmt.Sprint(two) })
	require.Equal(t, `["10.3.0.0/24"]`, harness.Kubectl(t, "", "get", serviceEntries, "-n", "meshed", "egress-1", "-o", "jsonpath={.spec.addresses}"))
	harness.Kubectl(t, "", "annotate", serviceEntries, "-n", "meshed", "egress-1", "team=mesh")
	harness.Kubectl(t, "", "patch", serviceEntries, "-n", "meshed", "egress-1", "--type=merge", "-p", `{"spec": {"addresses": ["10.0.0.0/8"]}}`)
	harness.Eventually(t, "the edit is undone", func() bool {
		return harness.Kubectl(t, "", "get", serviceEntries, "-n", "meshed", "egress-1", "-o", "jsonpath={.spec.addresses} {.metadata.annotations.team}") == `["10.3.0.0/24"] mesh`
	})
	harness.Kubectl(t, "", "delete", serviceEntries, "-n", "meshed", "egress-2")
	harness.Eventually(t, "it is back", func() bool { return len(get(t, serviceEntries, "meshed")) == 2 })

	// What somebody else made stays, also with the agent's label and under a name that the agent needs.
	const foreign = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: %s, namespace: meshed, labels: {app.kubernetes.io/managed-by: egress-agent}}\nspec: {hosts: [x.example.com], resolution: NONE}\n"
	harness.Kubectl(t, fmt.Sprintf(foreign, "mine")+"---\n"+fmt.Sprintf(foreign, "other-1"), "create", "-f", "-")
	harness.Kubectl(t, harness.PolicyManifest("meshed", "other", v2), "apply", "-f", "-")
	harness.Eventually(t, "the conflict is told", func() bool {
		return strings.Contains(agent.Log(t), "ServiceEntry other-1 exists")
	})
	require.Equal(t, 1, strings.Count(agent.Log(t), "ServiceEntry other-1 exists"), "once")
	harness.Kubectl(t, "", "delete", serviceEntries, "-n", "meshed", "other-1")
	harness.Eventually(t, "the agent makes its own", func() bool {
		return strings.Contains(harness.Kubectl(t, "", "get", serviceEntries, "-n", "meshed", "-o", "jsonpath={.items[*].spec.hosts}"), "1.other.meshed.egress.invalid")
	})

	harness.Kubectl(t, harness.PolicyManifest("meshed", "egress", v2), "apply", "-f", "-")
	harness.Eventually(t, "one is left of the policy", func() bool { return fmt.Sprint(get(t, serviceEntries, "meshed")) == "[egress-1 mine other-1]" })
	agent.Stop(t)
	mark, err := harness.Control(t).Mark()
	require.NoError(t, err)
	agent = harness.StartAgentWithRanges(t, "--service-entries")
	requireIdle(t, mark, "serviceentries")
	agent.Stop(t)
	harness.Kubectl(t, "", "delete", "configmap", "-n", "meshed", "egress", "other")
	harness.StartAgentWithRanges(t, "--service-entries")
	harness.Eventually(t, "only the foreign one is left", func() bool { return fmt.Sprint(get(t, serviceEntries, "meshed")) == "[mine]" })
}

// requireIdle requires that the agent has written no companion since mark, and writes none while nothing changes.
func requireIdle(t *testing.T, mark cluster.Mark, resource string) {
	t.Helper()
	harness.AwaitQuiet(t)
	time.Sleep(time.Second)
	writes, err := harness.Control(t).Writes(mark, "egress-agent")
	require.NoError(t, err)
	for _, write := range writes {
		require.NotContains(t, write, resource)
	}
}

// strictDocument requires regions in the namespace told. The namespace of the agent is to be filled in.
const strictDocument = `apiVersion: v1
kind: ConfigMap
metadata: {name: strict, namespace: %s, labels: {egress-controller: platform}}
data: {platform.json: '{"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "told"}}, "guardrails": {"require": ["regions"]}}'}
`

// TestAgentKeepsReports follows the Report of a namespace.
func TestAgentKeepsReports(t *testing.T) {
	harness.SkipUnlessAll(t)
	createDefinition(t, "reports.openreports.io", "github.com/openreports/reports-api", "config", "crd", "openreports.io_reports.yaml")
	grant(t, "reports")
	agent := harness.StartAgentWithRanges(t, "--reports")
	harness.CreateNamespace(t, "told")
	harness.Kubectl(t, harness.PolicyManifest("told", "egress", `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432], "reason": "orders"}, {"name": "s3", "awsService": "s3", "ports": [443], "reason": "files"}]}`), "apply", "-f", "-")
	summary := func(want string) {
		t.Helper()
		var got string
		defer func() {
			if t.Failed() {
				t.Log("last report: " + got)
			}
		}()
		harness.Eventually(t, "the report is "+want, func() bool {
			got, _, _ = harness.TryKubectl(t, "", "get", reports, "-n", "told", "egress-agent", "-o", `jsonpath={range .results[*]}{.result} {.policy} {.rule},{end}`)
			return got == want
		})
	}
	summary("warn egress every-region,pass egress applied,")
	harness.Kubectl(t, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: legacy, namespace: told}\nspec: {podSelector: {}, policyTypes: [Egress], egress: [{}]}\n", "apply", "-f", "-")
	summary("fail legacy leak,warn egress every-region,pass egress applied,")
	harness.Kubectl(t, harness.PolicyManifest("told", "second", harness.InvalidPolicy), "apply", "-f", "-")
	summary("fail second applied,fail legacy leak,warn egress every-region,pass egress applied,")
	harness.Kubectl(t, "", "patch", reports, "-n", "told", "egress-agent", "--type=merge", "-p", `{"results": []}`)
	summary("fail second applied,fail legacy leak,warn egress every-region,pass egress applied,")
	harness.Kubectl(t, "", "delete", "networkpolicy", "-n", "told", "legacy")
	harness.Kubectl(t, "", "delete", "configmap", "-n", "told", "second")
	summary("warn egress every-region,pass egress applied,")

	// A field that a platform document requires.
	harness.Kubectl(t, fmt.Sprintf(strictDocument, harness.AgentNamespace), "apply", "-f", "-")
	summary("fail egress required,warn egress every-region,pass egress applied,")
	harness.Eventually(t, "status tells it too", func() bool {
		command := exec.Command(harness.Binary(t, "egress-agent"), "status", "-n", "told", "-o", "json")
		command.Env = append(os.Environ(), "KUBECONFIG="+harness.Control(t).Kubeconfig)
		output, err := command.Output()
		require.NoError(t, err)
		return strings.Contains(string(output), `"Missing field: regions; platform document strict requires it (allowedDestinations[1].regions)"`)
	})
	harness.Kubectl(t, "", "delete", "configmap", "-n", harness.AgentNamespace, "strict")
	summary("warn egress every-region,pass egress applied,")

	// A restart writes nothing.
	agent.Stop(t)
	mark, err := harness.Control(t).Mark()
	require.NoError(t, err)
	harness.StartAgentWithRanges(t, "--reports")
	requireIdle(t, mark, "reports")
	harness.Kubectl(t, "", "delete", "configmap", "-n", "told", "egress")
	harness.Eventually(t, "the report is gone", func() bool { return len(get(t, reports, "told")) == 0 })
}
