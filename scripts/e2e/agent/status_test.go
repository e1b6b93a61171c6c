package agent

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/clientcmd"

	"egress-agent/scripts/e2e/harness"
)

// runStatus runs the built "egress-agent status".
func runStatus(t *testing.T, kubeconfig string, args ...string) (exit int, stdout, stderr string) {
	t.Helper()
	command := exec.Command(harness.Binary(t, "egress-agent"), append([]string{"status"}, args...)...)
	command.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	err := command.Run()
	if _, exited := err.(*exec.ExitError); !exited {
		require.NoError(t, err)
	}
	return command.ProcessState.ExitCode(), out.String(), errs.String()
}

// TestStatusReportsEveryState produces every state, and reads them as an administrator and as a tenant.
func TestStatusReportsEveryState(t *testing.T) {
	agent := harness.StartAgentWithRanges(t)
	for _, name := range []string{"status-a", "status-b", "status-none"} {
		harness.CreateNamespace(t, name)
	}
	harness.Kubectl(t, harness.PolicyManifest("status-a", "egress", harness.TenantA)+"---\n"+harness.PolicyManifest("status-b", "egress", harness.TenantB)+"---\n"+harness.PolicyManifest("status-b", "typo", harness.InvalidPolicy), "apply", "-f", "-")
	harness.Kubectl(t, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: legacy, namespace: status-a}\nspec: {podSelector: {}, policyTypes: [Egress], egress: [{}]}\n", "apply", "-f", "-")
	harness.Kubectl(t, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: ours, namespace: status-b}\nspec: {podSelector: {}, policyTypes: [Ingress]}\n", "apply", "-f", "-")
	harness.Kubectl(t, harness.PolicyManifest("status-b", "ours", harness.TenantB), "apply", "-f", "-")
	for _, name := range []string{"status-a/egress", "status-b/egress", "status-b/typo"} {
		space, name, _ := strings.Cut(name, "/")
		harness.AwaitNetworkPolicy(t, space, name, "there", harness.Exists)
	}
	harness.Eventually(t, "the ranges are saved", func() bool {
		_, _, err := harness.TryKubectl(t, "", "get", "configmap", "-n", "egress-system", "egress-ranges")
		return err == nil
	})
	harness.AwaitQuiet(t)
	mark, err := harness.Control(t).Mark()
	require.NoError(t, err)

	exit, stdout, stderr := runStatus(t, harness.Control(t).Kubeconfig, "-n", "status-a")
	require.Zero(t, exit, stderr)
	require.Empty(t, stderr)
	require.Equal(t, `NAMESPACE   NAME     STATE     DESTINATIONS   CIDRS   PORT SLOTS   RANGES   OTHERS
status-a    egress   Applied   2              3       3/24         AGE      1 (legacy=everything)
`, regexp.MustCompile(`(\d+[sm])+ +1 `).ReplaceAllString(stdout, "AGE      1 "))

	exit, stdout, stderr = runStatus(t, harness.Control(t).Kubeconfig, "-n", "status-b", "-o", "wide")
	require.Equal(t, 1, exit, "some are not applied")
	require.Regexp(t, `(?m)^status-b +egress +Applied +2 +\d+ +4/24 .* deny +egress +tables=1 partners=1$`, stdout)
	require.Regexp(t, `(?m)^status-b +ours +NameConflict `, stdout)
	require.Regexp(t, `(?m)^status-b +typo +Invalid +<unknown> +0 +2/24 `, stdout)
	require.Contains(t, stderr, "status-b/ours: NameConflict: NetworkPolicy ours exists and egress-agent does not manage it")
	require.Contains(t, stderr, "status-b/typo: Invalid: Invalid region: us-esat-1; did you mean us-east-1? (allowedDestinations[0].regions[0])\n")
	require.Contains(t, stderr, "status-b/typo: Invalid: Until it is corrected, all egress but DNS is denied\n")

	exit, stdout, stderr = runStatus(t, harness.Control(t).Kubeconfig, "-n", "status-none")
	require.Zero(t, exit)
	require.Empty(t, stdout)
	require.Equal(t, "No policies found in status-none namespace.\n", stderr)

	exit, stdout, stderr = runStatus(t, harness.Control(t).Kubeconfig, "-o", "json")
	require.Equal(t, 1, exit)
	require.Empty(t, stderr)
	states := parseStates(t, stdout)
	require.Equal(t, "Applied", states["status-a/egress"])
	require.Equal(t, "NameConflict", states["status-b/ours"])
	require.Equal(t, "Invalid", states["status-b/typo"])
	var report struct {
		Cluster string
		Ranges  struct{ Source, SyncToken, Confirmed string }
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &report))
	require.Equal(t, "ConfigMap egress-system/egress-ranges", report.Ranges.Source)
	require.Equal(t, "1700000000", report.Ranges.SyncToken)
	require.NotEmpty(t, report.Ranges.Confirmed)

	exit, stdout, stderr = runStatus(t, harness.Control(t).Kubeconfig, "-o", "html")
	require.Equal(t, 1, exit)
	require.Empty(t, stderr)
	require.Contains(t, stdout, `<th>status-a</th><td><span class="state Applied">`)
	require.Contains(t, stdout, `<h3>egress</h3> <span class="state Applied">`)
	require.Contains(t, stdout, report.Cluster)

	requireTenantStatus(t)

	agent.Stop(t) // later changes stay pending
	harness.Kubectl(t, harness.PolicyManifest("status-a", "egress", harness.TenantAWest)+"---\n"+harness.PolicyManifest("status-a", "more", harness.TenantA), "apply", "-f", "-")
	harness.Kubectl(t, "", "patch", "networkpolicy", "-n", "status-b", "egress", "--type", "merge", "-p", `{"spec": {"egress": [{}]}}`)
	exit, _, stderr = runStatus(t, harness.Control(t).Kubeconfig, "-n", "status-a")
	require.Equal(t, 1, exit)
	require.Equal(t, "status-a/egress: Pending: NetworkPolicy egress was made from an earlier version of the policy; the agent is behind or not running\n"+
		"status-a/more: Pending: There is no NetworkPolicy yet; the agent is behind or not running\n", stderr)
	_, _, stderr = runStatus(t, harness.Control(t).Kubeconfig, "-n", "status-b")
	require.Contains(t, stderr, "status-b/egress: Pending: A person edited NetworkPolicy egress, and the agent has not restored it yet; the agent is behind or not running\n")

	harness.Kubectl(t, "", "delete", "configmap", "-n", "egress-system", "egress-ranges")
	exit, stdout, stderr = runStatus(t, harness.Control(t).Kubeconfig, "-n", "status-a")
	require.Equal(t, 1, exit)
	require.Regexp(t, `(?m)^status-a +egress +RangesUnavailable .* <unknown> `, stdout)
	require.Contains(t, stderr, `status-a/more: RangesUnavailable: The AWS ranges of these destinations are not loaded yet: ["s3"]; the other destinations are applied`)
	exit, stdout, _ = runStatus(t, harness.Control(t).Kubeconfig, "-n", "status-a", "--ranges-file", harness.RangesFile)
	require.Equal(t, 1, exit)
	require.Regexp(t, `(?m)^status-a +egress +Pending `, stdout)

	writes, err := harness.Control(t).Writes(mark, "egress-agent-status")
	require.NoError(t, err)
	require.Empty(t, writes, "status only reads")
}

// TestFlowsOfRealPods compares connections of pods that the API server knows with the policies of two namespaces.
func TestFlowsOfRealPods(t *testing.T) {
	harness.StartAgentWithRanges(t)
	for space, address := range map[string]string{"flows-a": "10.244.7.1", "flows-b": "10.244.7.2"} {
		harness.CreateNamespace(t, space)
		harness.Kubectl(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web}}\nspec: {automountServiceAccountToken: false, containers: [{name: web, image: web}]}\n", "apply", "-n", space, "-f", "-")
		harness.Kubectl(t, "", "patch", "pod", "web", "-n", space, "--subresource=status", "--type=merge", "-p", `{"status": {"podIP": "`+address+`", "podIPs": [{"ip": "`+address+`"}]}}`)
	}
	harness.Kubectl(t, harness.PolicyManifest("flows-a", "egress", `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}, {"name": "old", "cidr": "10.2.0.0/24", "ports": [22]}]}`)+"---\n"+
		harness.PolicyManifest("flows-b", "egress", `{"defaultAction": "allow", "allowedDestinations": [{"name": "peer", "pods": {"app": "web"}, "namespace": "flows-a", "ports": [80]}]}`), "apply", "-f", "-")
	for _, space := range []string{"flows-a", "flows-b"} {
		harness.AwaitNetworkPolicy(t, space, "egress", "there", harness.Exists)
	}
	var log strings.Builder
	for _, line := range []string{"10.244.7.1;SPORT: 39197;DIP: 10.1.0.5;DPORT: 5432", "10.244.7.1;SPORT: 39198;DIP: 10.3.0.5;DPORT: 443", "10.244.7.2;SPORT: 39199;DIP: 10.244.7.1;DPORT: 80", "10.244.7.2;SPORT: 39200;DIP: 10.1.0.5;DPORT: 5432"} {
		log.WriteString("Node: n;SIP: " + line + ";PROTOCOL: TCP;PolicyVerdict: ACCEPT\n")
	}
	file := filepath.Join(t.TempDir(), "agent.log")
	require.NoError(t, os.WriteFile(file, []byte(log.String()), 0o600))

	exit, stdout, stderr := runStatus(t, harness.Control(t).Kubeconfig, "-n", "flows-a", "--flows", file)
	require.Equal(t, 1, exit)
	require.Equal(t, "NAMESPACE   FLOWS   DENIED   UNUSED\nflows-a     2       1        1\n", stdout)
	require.Contains(t, stderr, "\nflows-a: would be denied: 10.3.0.5:443/TCP (sources: 1, records: 1)\nflows-a/egress/old: unused: no connection used it\n")
	_, stdout, stderr = runStatus(t, harness.Control(t).Kubeconfig, "-n", "flows-b", "--flows", file)
	require.Equal(t, "NAMESPACE   FLOWS   DENIED   UNUSED\nflows-b     2       1        0\n", stdout)
	require.Contains(t, stderr, "\nflows-b: would be denied: 10.1.0.5:5432/TCP (sources: 1, records: 1)\n")

	command := exec.Command(harness.Binary(t, "egress-agent"), "recommend", "--flows", file, "--kubeconfig", harness.Control(t).Kubeconfig, "--ranges-file", harness.RangesFile)
	output, err := command.CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.Contains(t, string(output), "namespace: flows-a")
	require.Contains(t, string(output), `"pods": {"app":"web"}, "namespace": "flows-a"`)

	// A tenant who may not list pods sees only its own namespace, and all connections count as its own.
	harness.Kubectl(t, "", "create", "serviceaccount", "-n", "flows-a", "reader")
	harness.Kubectl(t, "", "create", "role", "-n", "flows-a", "reader", "--verb=get,list", "--resource=configmaps,networkpolicies.networking.k8s.io")
	harness.Kubectl(t, "", "create", "rolebinding", "-n", "flows-a", "reader", "--role=reader", "--serviceaccount=flows-a:reader")
	kubeconfig, err := harness.Control(t).ServiceAccountKubeconfig(t.Context(), "flows-a", "reader")
	require.NoError(t, err)
	_, stdout, stderr = runStatus(t, kubeconfig, "-n", "flows-a", "--flows", file)
	require.Equal(t, "NAMESPACE   FLOWS   DENIED   UNUSED\nflows-a     4       2        1\n", stdout)
	require.Contains(t, stderr, "note: no permission to list pods and services: all connections count as those of one namespace; --pods FILE gives the pods\n")
	command = exec.Command(harness.Binary(t, "egress-agent"), "recommend", "--flows", file, "--kubeconfig", kubeconfig)
	output, err = command.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(output), "no permission to list pods and services in all namespaces with kubeconfig "+kubeconfig+": give --pods FILE")
}

// requireTenantStatus runs status with rights in one namespace only.
func requireTenantStatus(t *testing.T) {
	harness.Kubectl(t, "", "create", "serviceaccount", "-n", "status-a", "reader")
	harness.Kubectl(t, "", "create", "role", "-n", "status-a", "reader", "--verb=get,list", "--resource=configmaps,networkpolicies.networking.k8s.io")
	harness.Kubectl(t, "", "create", "rolebinding", "-n", "status-a", "reader", "--role=reader", "--serviceaccount=status-a:reader")
	kubeconfig, err := harness.Control(t).ServiceAccountKubeconfig(t.Context(), "status-a", "reader")
	require.NoError(t, err)

	exit, stdout, stderr := runStatus(t, kubeconfig, "-n", "status-a")
	require.Zero(t, exit, stderr)
	require.Regexp(t, `(?m)^status-a +egress +Applied +2 +3 +3/24 +<unknown> +1 \(legacy=everything\)$`, stdout)
	require.Equal(t, "egress-agent status: note: no permission to read ConfigMap egress-system/egress-ranges: the age of the AWS ranges is unknown\n", stderr)

	exit, stdout, stderr = runStatus(t, "", "--kubeconfig", kubeconfig)
	require.Equal(t, 2, exit)
	require.Empty(t, stdout)
	require.Equal(t, "egress-agent status: no permission to list ConfigMaps in all namespaces with kubeconfig "+kubeconfig+": give -n NAMESPACE\n", stderr)

	exit, _, stderr = runStatus(t, kubeconfig, "-n", "status-b")
	require.Equal(t, 2, exit)
	require.Equal(t, "egress-agent status: no permission to list ConfigMaps in namespace status-b with kubeconfig "+kubeconfig+": ask for the right to list configmaps and networkpolicies there\n", stderr)
}

// TestStatusExplainsUnreadableCluster requires one line about each kind of cluster that status cannot read.
func TestStatusExplainsUnreadableCluster(t *testing.T) {
	closed := harness.FreeAddress(t)
	variant := func(name string, change func(server, token *string)) string {
		config, err := clientcmd.LoadFromFile(harness.Control(t).Kubeconfig)
		require.NoError(t, err)
		for _, cluster := range config.Clusters {
			for _, user := range config.AuthInfos {
				change(&cluster.Server, &user.Token)
				if user.Token != "" {
					user.ClientCertificateData, user.ClientKeyData = nil, nil
				}
			}
		}
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, clientcmd.WriteToFile(*config, path))
		return path
	}
	unreachable := variant("unreachable", func(server, _ *string) { *server = "https://" + closed })
	expired := variant("expired", func(_, token *string) { *token = "gone" })
	for _, test := range []struct{ name, kubeconfig, want string }{
		{"unreachable", unreachable, "no answer from https://" + closed + ", the server in kubeconfig " + unreachable + ": dial tcp " + closed + ": connect: connection refused; check that the cluster runs and that the server is right"},
		{"credentials", expired, harness.Control(t).Admin.RESTClient().Get().URL().Scheme + "://" + harness.Control(t).Admin.RESTClient().Get().URL().Host + " does not accept the credentials of kubeconfig " + expired + ": log in again or give another kubeconfig with --kubeconfig FILE"},
		{"none", "/none", "no cluster: kubeconfig /none is missing or empty; give --kubeconfig FILE or set KUBECONFIG"},
	} {
		t.Run(test.name, func(t *testing.T) {
			exit, stdout, stderr := runStatus(t, test.kubeconfig, "-n", "default")
			require.Equal(t, 2, exit)
			require.Empty(t, stdout)
			require.Equal(t, "egress-agent status: "+test.want+"\n", stderr)
		})
	}
}

// parseStates returns the state of each policy in the output of -o json, by NAMESPACE/NAME.
func parseStates(t *testing.T, output string) map[string]string {
	t.Helper()
	var report struct {
		Policies []struct{ Namespace, Name, State string }
	}
	require.NoError(t, json.Unmarshal([]byte(output), &report))
	states := make(map[string]string)
	for _, p := range report.Policies {
		states[p.Namespace+"/"+p.Name] = p.State
	}
	return states
}
