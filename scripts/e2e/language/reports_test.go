package language

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	openreports "github.com/openreports/reports-api/apis/openreports.io/v1alpha1"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"egress-agent/scripts/e2e/harness"
)

// createDefinition creates a CustomResourceDefinition, until the test ends. definitions is a file of a Go module with any
// number of them.
func createDefinition(t *testing.T, name, module string, definitions ...string) {
	harness.Control(t)
	folder, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(append([]string{strings.TrimSpace(string(folder))}, definitions...)...))
	require.NoError(t, err)
	for _, definition := range strings.Split(string(text), "\n---\n") {
		if strings.Contains(definition, "  name: "+name+"\n") {
			harness.Kubectl(t, definition, "create", "-f", "-")
		}
	}
	t.Cleanup(func() { harness.TryKubectl(t, "", "delete", "crd", name) })
	harness.Kubectl(t, "", "wait", "--for=condition=Established", "crd/"+name)
}

// TestReports stores the reports of a cluster with OpenReports' own CustomResourceDefinition, and reads them as its types.
func TestReports(t *testing.T) {
	createDefinition(t, "reports.openreports.io", "github.com/openreports/reports-api", "config", "crd", "openreports.io_reports.yaml")
	harness.StartAgentWithRanges(t)
	harness.CreateNamespace(t, "reported")
	harness.Kubectl(t, harness.PolicyManifest("reported", "egress", `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "reason": "orders"}, {"name": "vpn", "cidr": "10.2.0.0/24", "ports": [443], "reason": "TICKET-1", "expires": "2099-12-31"}]}`), "apply", "-f", "-")
	harness.Kubectl(t, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: legacy, namespace: reported}\nspec: {podSelector: {}, policyTypes: [Egress], egress: [{}]}\n", "apply", "-f", "-")
	harness.AwaitNetworkPolicy(t, "reported", "egress", "there", harness.Exists)
	report := func() string {
		command := exec.Command(harness.Binary(t, "egress-agent"), "status", "-n", "reported", "-o", "report")
		command.Env = append(os.Environ(), "KUBECONFIG="+harness.Control(t).Kubeconfig)
		output, err := command.Output()
		require.NoError(t, err)
		return string(output)
	}
	rendered := report()
	require.Equal(t, rendered, report(), "equal states give equal reports")
	harness.Kubectl(t, rendered, "create", "--validate=strict", "-f", "-")

	var stored openreports.Report
	require.NoError(t, yaml.UnmarshalStrict([]byte(harness.Kubectl(t, "", "get", "reports.openreports.io", "-n", "reported", "egress-agent", "-o", "yaml")), &stored))
	require.Equal(t, "egress-agent", stored.Source)
	require.Equal(t, 2, stored.Summary.Fail)
	require.Equal(t, 1, stored.Summary.Pass)
	var found []string
	for _, result := range stored.Results {
		found = append(found, string(result.Result)+" "+string(result.Severity)+" "+result.Policy+" "+result.Rule+" "+result.Properties["destination"])
	}
	require.Equal(t, []string{"fail high legacy leak ", "fail medium egress every-port db", "pass info egress applied "}, found)
}
