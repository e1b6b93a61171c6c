package deployed

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/kubernetes"

	"egress-agent/scripts/e2e/cluster"
)

// optional turns overlays on, off, and on again, whose objects the agent writes beside NetworkPolicies. Off, nothing of
// them is left. make deploy installs the definition of Reports. Istio's comes from its project, and Cilium's from
// scripts/e2e/language.
func optional(t *testing.T, client *kubernetes.Clientset) {
	do(t, `cd scripts/e2e
		kubectl apply --server-side -f "$(go list -m -f '{{.Dir}}' istio.io/api)/kubernetes/customresourcedefinitions.gen.yaml" -f language/testdata/ciliumnetworkpolicies.yaml`)
	t.Cleanup(func() {
		shell("kubectl delete crd reports.openreports.io ciliumnetworkpolicies.cilium.io; kubectl get crd -o name | grep istio.io | xargs kubectl delete; kubectl delete namespace names")
	})
	do(t, `kubectl create namespace names; kubectl apply -n names -f - <<'Y'
{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "egress", "labels": {"egress-controller": "managed"}},
 "data": {"policy.json": "{\"allowedDestinations\": [{\"name\": \"db\", \"cidr\": \"10.1.0.0/24\", \"ports\": [5432]}, {\"name\": \"api\", \"domain\": \"api.example.com\", \"ports\": [443]}]}"}}
Y`)
	const written = "kubectl get reports.openreports.io,serviceentries.networking.istio.io,ciliumnetworkpolicies.cilium.io -n names -o name | sort"
	const rights = "kubectl get clusterroles,clusterrolebindings -l app.kubernetes.io/name=egress-agent -o name | sort"
	withoutRights := do(t, rights)
	for range 2 {
		do(t, "make deploy OVERLAYS='restricted-internet reports service-entries domains-cilium'")
		require.Eventually(t, func() bool {
			output, err := shell(written)
			return err == nil && output == "ciliumnetworkpolicy.cilium.io/egress\nreport.openreports.io/egress-agent\nserviceentry.networking.istio.io/egress-1\n"
		}, soon, time.Second, "the objects of all three kinds are written")
		output := do(t, "make deploy OVERLAYS=restricted-internet")
		require.Contains(t, output, "Deleting the 1 ciliumnetworkpolicies.cilium.io that the agent has written")
		require.Equal(t, "No resources found", strings.TrimSpace(do(t, "kubectl get reports.openreports.io,serviceentries.networking.istio.io,ciliumnetworkpolicies.cilium.io -A 2>&1")))
		require.Equal(t, withoutRights, do(t, rights))
	}
	require.NotContains(t, do(t, "make deploy OVERLAYS=restricted-internet"), "Deleting")
}

// mirrored copies a policy from a hub that runs on this machine, at HUB_ADDRESS, which the nodes must reach.
func mirrored(t *testing.T, client *kubernetes.Clientset) {
	address := os.Getenv("HUB_ADDRESS")
	if address == "" {
		t.Skip("HUB_ADDRESS is an address of this machine that the nodes reach")
	}
	programs, err := filepath.Abs(root + "/bin/control-plane")
	require.NoError(t, err)
	hub, err := cluster.StartAt(t.Context(), address, programs, t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, hub.Stop()) })
	t.Setenv("HUB", hub.Kubeconfig)
	t.Setenv("FILES", t.TempDir())
	output, err := shell("make deploy OVERLAYS='restricted-internet mirror'")
	require.Error(t, err)
	require.Contains(t, output, "egress-mirror needs the Secret egress-mirror-hub with a kubeconfig of the hub")
	do(t, `hub() { kubectl --kubeconfig "$HUB" "$@"; }
		hub apply -f deploy/components/mirror/hub-rbac.yaml
		hub create token egress-mirror -n egress-mirror --duration=1h >"$FILES/token"
		cp "$HUB" "$FILES/kubeconfig"
		kubectl --kubeconfig "$FILES/kubeconfig" config set users.mirror.tokenFile token
		kubectl --kubeconfig "$FILES/kubeconfig" config set-context --current --user=mirror
		kubectl --kubeconfig "$FILES/kubeconfig" config delete-user "$(kubectl --kubeconfig "$HUB" config view -o 'jsonpath={.users[0].name}')"
		kubectl create secret generic egress-mirror-hub -n egress-system --from-file="$FILES/kubeconfig" --from-file="$FILES/token"
		for cluster in "$HUB" "$KUBECONFIG"; do kubectl --kubeconfig "$cluster" create namespace fleet; done
		hub create configmap egress -n fleet --from-literal='policy.json={"allowedDestinations": []}'
		hub label configmap egress -n fleet egress-controller=managed`)
	t.Cleanup(func() { shell("kubectl delete namespace fleet") })
	do(t, "make deploy OVERLAYS='restricted-internet mirror'")
	do(t, "kubectl wait networkpolicy/egress -n fleet --for=create --timeout=60s")
	require.NotContains(t, do(t, "kubectl logs -n egress-system deployment/egress-mirror"), `"level":"ERROR"`)

	output = do(t, "make deploy OVERLAYS=restricted-internet")
	require.Contains(t, output, "The copied policies stay in force")
	require.Empty(t, do(t, "kubectl get deployments,services,networkpolicies,serviceaccounts,configmaps,clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings -A -l app.kubernetes.io/name=egress-mirror -o name"))
	do(t, "kubectl get networkpolicy egress -n fleet")
}
