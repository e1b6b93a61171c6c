package deploy

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/scripts/e2e/harness"
)

// runPreflight runs scripts/preflight.sh. It returns the lines, and whether the script found no error.
func runPreflight(t *testing.T, kubeconfig string) (lines []string, fine bool) {
	t.Helper()
	kubectl, err := filepath.Abs(harness.ControlPlaneDir + "/kubectl")
	require.NoError(t, err)
	command := exec.Command(harness.Root + "/scripts/preflight.sh")
	command.Env = append(os.Environ(), "KUBECTL="+kubectl, "KUBECONFIG="+kubeconfig, "OVERLAYS=cert-manager")
	output, err := command.Output()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		require.NoError(t, err)
	}
	return strings.Split(strings.TrimSpace(string(output)), "\n"), err == nil
}

// requireLine requires a line that begins with begin.
func requireLine(t *testing.T, lines []string, begin string) {
	t.Helper()
	for _, line := range lines {
		if strings.HasPrefix(line, begin) {
			return
		}
	}
	require.Fail(t, "no line begins with: "+begin, strings.Join(lines, "\n"))
}

const daemonSet = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: NAME, namespace: kube-system}
spec:
  selector: {matchLabels: {a: NAME}}
  template:
    metadata: {labels: {a: NAME}}
    spec:
      containers:
      - {name: NAME, image: "example.com/amazon-k8s-cni:VERSION", env: [{name: NETWORK_POLICY_ENFORCING_MODE, value: "%mode"}]}
      - {name: aws-eks-nodeagent, image: example.com/agent, args: [--enable-ipv6=false, --enable-network-policy=ENABLED]}
`

const policyEndpoints = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: policyendpoints.networking.k8s.aws, annotations: {api-approved.kubernetes.io: unapproved}}
spec:
  group: networking.k8s.aws
  names: {kind: PolicyEndpoint, plural: policyendpoints}
  scope: Namespaced
  versions: [{name: v1alpha1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
`

const nodeClasses = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: nodeclasses.eks.amazonaws.com}
spec:
  group: eks.amazonaws.com
  names: {kind: NodeClass, plural: nodeclasses}
  scope: Cluster
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`

// createNodes creates a node for each kind, and deletes them when the test ends. A kind is the value of the label of EKS,
// windows, or managed.
func createNodes(t *testing.T, kinds ...string) {
	t.Helper()
	for i, kind := range kinds {
		labels := map[string]string{"kubernetes.io/os": "linux", "eks.amazonaws.com/compute-type": kind}
		switch kind {
		case "managed":
			delete(labels, "eks.amazonaws.com/compute-type")
		case "windows":
			labels = map[string]string{"kubernetes.io/os": "windows"}
		}
		nodes, name := harness.Control(t).Admin.CoreV1().Nodes(), fmt.Sprintf("%s-%d", kind, i)
		_, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, nodes.Delete(context.Background(), name, metav1.DeleteOptions{})) })
	}
}

// createCRD creates a CustomResourceDefinition, and deletes it when the test ends.
func createCRD(t *testing.T, manifest string) {
	t.Helper()
	harness.Kubectl(t, manifest, "create", "-f", "-")
	t.Cleanup(func() { harness.Kubectl(t, manifest, "delete", "-f", "-") })
	harness.Kubectl(t, manifest, "wait", "--for=condition=Established", "-f", "-")
}

// TestPreflightJudgesEachKindOfNodes runs the check on clusters with several kinds of nodes.
func TestPreflightJudgesEachKindOfNodes(t *testing.T) {
	harness.SkipUnlessAll(t)
	createCRD(t, nodeClasses)
	createNodes(t, "fargate", "windows")
	lines, _ := runPreflight(t, harness.Control(t).Kubeconfig)
	requireLine(t, lines, "error    NetworkPolicies have no effect on 1 Fargate node: Pods there can connect anywhere. Limit them by security groups for Pods")
	requireLine(t, lines, "error    NetworkPolicies have no effect on 1 Windows node: Pods there can connect anywhere. Run tenants' Pods on Linux nodes")

	createNodes(t, "auto", "auto", "hybrid", "managed")
	harness.Kubectl(t, strings.NewReplacer("NAME", "aws-node", "VERSION", "v1.20.1", "%mode", "standard", "ENABLED", "true").Replace(daemonSet), "apply", "-f", "-")
	t.Cleanup(func() { harness.Kubectl(t, "", "delete", "daemonset", "-n", "kube-system", "aws-node") })
	lines, _ = runPreflight(t, harness.Control(t).Kubeconfig)
	requireLine(t, lines, "ok       VPC CNI 1.20.1 enforces NetworkPolicies on 1 managed or self-managed node (enable-network-policy)")
	requireLine(t, lines, "error    EKS Auto Mode does not enforce NetworkPolicies on 2 Auto Mode nodes: create the ConfigMap amazon-vpc-cni")
	requireLine(t, lines, "warning  this script knows no CNI here that enforces NetworkPolicies on 1 Hybrid node")
	requireLine(t, lines, "warning  NetworkPolicies have no effect on 1 Fargate node")
	requireLine(t, lines, "warning  NetworkPolicies have no effect on 1 Windows node")

	harness.Kubectl(t, "", "create", "configmap", "amazon-vpc-cni", "-n", "kube-system", "--from-literal=enable-network-policy-controller=false")
	t.Cleanup(func() { harness.Kubectl(t, "", "delete", "configmap", "amazon-vpc-cni", "-n", "kube-system") })
	lines, _ = runPreflight(t, harness.Control(t).Kubeconfig)
	requireLine(t, lines, "error    VPC CNI 1.20.1 gets no NetworkPolicies on 1 managed or self-managed node: the ConfigMap amazon-vpc-cni in kube-system says")

	harness.Kubectl(t, "", "patch", "configmap", "amazon-vpc-cni", "-n", "kube-system", "-p", `{"data": {"enable-network-policy-controller": "true"}}`)
	for name, spec := range map[string]string{"default": "{networkPolicy: DefaultDeny}", "batch": "{}"} {
		harness.Kubectl(t, "{apiVersion: eks.amazonaws.com/v1, kind: NodeClass, metadata: {name: "+name+"}, spec: "+spec+"}", "create", "-f", "-")
	}
	lines, _ = runPreflight(t, harness.Control(t).Kubeconfig)
	requireLine(t, lines, "ok       EKS Auto Mode enforces NetworkPolicies on 2 Auto Mode nodes of the NodeClasses with networkPolicy (default: DefaultDeny)")
	requireLine(t, lines, "warning  of 2 Auto Mode nodes, those of these NodeClasses may not enforce NetworkPolicies: batch")
}

// TestPreflightReportsWhatIsMissing runs the check on clusters that lack something, and on one that lacks nothing.
func TestPreflightReportsWhatIsMissing(t *testing.T) {
	harness.SkipUnlessAll(t)
	set := func(name, version, mode, enabled string) {
		harness.Kubectl(t, strings.NewReplacer("NAME", name, "VERSION", version, "%mode", mode, "ENABLED", enabled).Replace(daemonSet), "apply", "-f", "-")
		t.Cleanup(func() { harness.Kubectl(t, "", "delete", "daemonset", "-n", "kube-system", name, "--ignore-not-found") })
	}
	lines, fine := runPreflight(t, harness.Control(t).Kubeconfig)
	require.False(t, fine)
	requireLine(t, lines, "ok       Kubernetes 1.")
	requireLine(t, lines, "ok       you may create all that deploy needs")
	requireLine(t, lines, "ok       you may grant the agent its rights")
	requireLine(t, lines, "warning  this script knows no CNI here that enforces NetworkPolicies")
	requireLine(t, lines, "error    no Pod with k8s-app=kube-dns runs in kube-system")
	requireLine(t, lines, "error    the overlay needs crd certificates.cert-manager.io: install cert-manager")

	harness.Kubectl(t, `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}}, "spec": {"containers": [{"name": "dns", "image": "x"}]}}`, "create", "-f", "-")
	t.Cleanup(func() { harness.Kubectl(t, "", "delete", "pod", "-n", "kube-system", "dns", "--force") })
	harness.Kubectl(t, "", "patch", "pod", "-n", "kube-system", "dns", "--subresource=status", "-p", `{"status": {"phase": "Running"}}`)
	set("cilium", "v1.19", "", "")
	lines, _ = runPreflight(t, harness.Control(t).Kubeconfig)
	requireLine(t, lines, "ok       NetworkPolicies are enforced by cilium (amazon-k8s-cni:v1.19) on 0 managed or self-managed nodes")
	requireLine(t, lines, "ok       the DNS rule of every policy finds DNS")

	set("aws-node", "v1.13.4-eksbuild.1", "standard", "false")
	lines, _ = runPreflight(t, harness.Control(t).Kubeconfig)
	requireLine(t, lines, "error    VPC CNI 1.13.4-eksbuild.1 does not enforce NetworkPolicies on 0 managed or self-managed nodes: update the add-on")

	set("aws-node", "v1.20.1-eksbuild.3", "standard", "false")
	set("node-local-dns", "v1", "", "")
	lines, _ = runPreflight(t, harness.Control(t).Kubeconfig)
	requireLine(t, lines, "error    VPC CNI 1.20.1-eksbuild.3 does not enforce NetworkPolicies on 0 managed or self-managed nodes: its node agent runs with --enable-network-policy=false")
	requireLine(t, lines, "error    the CRD policyendpoints.networking.k8s.aws is missing")
	requireLine(t, lines, "warning  VPC CNI enforces in standard mode")
	requireLine(t, lines, "warning  NodeLocal DNSCache answers the Pods")

	set("aws-node", "v1.20.1-eksbuild.3", "strict", "true")
	crds := policyEndpoints + "---" + strings.NewReplacer("policyendpoints", "certificates", "networking.k8s.aws", "cert-manager.io", "PolicyEndpoint", "Certificate").Replace(policyEndpoints)
	harness.Kubectl(t, crds, "create", "-f", "-")
	t.Cleanup(func() { harness.Kubectl(t, crds, "delete", "-f", "-") })
	lines, fine = runPreflight(t, harness.Control(t).Kubeconfig)
	require.True(t, fine, strings.Join(lines, "\n"))
	requireLine(t, lines, "ok       VPC CNI 1.20.1-eksbuild.3 enforces NetworkPolicies on 0 managed or self-managed nodes (enable-network-policy)")
	requireLine(t, lines, "ok       the CRD PolicyEndpoints exists")
	requireLine(t, lines, "ok       VPC CNI enforces in strict mode")
	requireLine(t, lines, "ok       the overlay finds certificates.cert-manager.io")
}

// TestPreflightReportsMissingRights runs the check as a user who may only read.
func TestPreflightReportsMissingRights(t *testing.T) {
	harness.CreateNamespace(t, "viewers")
	harness.Kubectl(t, "", "create", "serviceaccount", "-n", "viewers", "viewer")
	harness.Kubectl(t, "", "create", "clusterrolebinding", "viewer", "--clusterrole=view", "--serviceaccount=viewers:viewer")
	t.Cleanup(func() { harness.Kubectl(t, "", "delete", "clusterrolebinding", "viewer") })
	kubeconfig, err := harness.Control(t).ServiceAccountKubeconfig(t.Context(), "viewers", "viewer")
	require.NoError(t, err)
	lines, fine := runPreflight(t, kubeconfig)
	require.False(t, fine)
	requireLine(t, lines, "error    you may not create namespaces clusterroles clusterrolebindings validatingwebhookconfigurations")
}
