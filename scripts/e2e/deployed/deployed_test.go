// Package deployed deploys both programs to the cluster that kubectl points at, by the commands of
// deploy/README.md, and updates them under load. It changes that cluster, so it runs only with make test-deployed. The
// cluster must run real Pods; it needs no internet.
package deployed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"egress-agent/scripts/e2e/markdown"
)

const (
	root   = "../../.."
	ours   = "egress-system"
	ranges = "testdata/ranges/ip-ranges.json"
	soon   = 2 * time.Minute // a kubelet updates mounted ConfigMaps once a minute
)

// TestDeployed is one sequence: each part continues from the one before.
func TestDeployed(t *testing.T) {
	if os.Getenv("DEPLOYED") != "1" {
		t.Skip("this deploys to a running cluster: make test-deployed")
	}
	client := connect(t)
	t.Setenv("IMG_AGENT", "")
	t.Setenv("IMG_WEBHOOK", "")
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(shell("make --no-print-directory status; make --no-print-directory logs TAIL=30; kubectl get events -n " + ours))
			t.Log("without a verdict: ", strings.Join(withoutVerdict, "\n")) // again, where a log that is cut still has it
		}
		shell("make undeploy PURGE=1; kubectl delete namespace tenant-a load --ignore-not-found")
	})
	for _, part := range []struct {
		name string
		run  func(t *testing.T, client *kubernetes.Clientset)
	}{
		{"readme", readme},
		{"onboard", onboard},
		{"ranges from a file", rangesFromFile},
		{"hardened", hardened},
		{"under load", underLoad},
		{"an image that is not there", missingImage},
		{"on, off, and on again", optional},
		{"mirror", mirrored},
		{"undeploy", undeploy},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(t, client) }) {
			break
		}
	}
}

func connect(t *testing.T) *kubernetes.Clientset {
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil).ClientConfig()
	require.NoError(t, err)
	config.QPS, config.WarningHandler = -1, rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return client
}

// shell runs a script at the root of the repository, as a user would, and returns its output.
func shell(script string) (string, error) {
	command := exec.Command("bash", "-eo", "pipefail", "-c", script)
	command.Dir = root
	output, err := command.CombinedOutput()
	return string(output), err
}

// do is shell for a script that must succeed.
func do(t *testing.T, script string) string {
	t.Helper()
	output, err := shell(script)
	t.Logf("$ %s\n%s", script, output)
	require.NoError(t, err)
	return output
}

// readme runs the commands of the section "Deploy images of your own", word for word. The command in LOAD, which gets the images' names,
// does what a registry would do.
func readme(t *testing.T, client *kubernetes.Clientset) {
	document, err := markdown.Read(root + "/deploy/README.md")
	require.NoError(t, err)
	commands := document.Section("Deploy images of your own")
	require.NotEmpty(t, commands, "deploy/README.md has the section")
	exports, refused := "", ""
	for _, c := range commands {
		switch {
		case c.Status != 0:
			output, err := shell(c.Script)
			require.Error(t, err, "the webhook denies an invalid policy")
			refused = output
		case strings.Contains(c.Script, "make images"):
			exports = regexp.MustCompile(`(?m)^export .*\n`).FindString(c.Script)
			do(t, c.Script+os.Getenv("LOAD")+" $IMG_AGENT $IMG_WEBHOOK")
		default:
			do(t, exports+c.Script)
		}
	}
	require.Contains(t, refused, `admission webhook "policy.egress-controller.io" denied the request: Policy validation failed: Invalid region: us-esat-1; did you mean us-east-1?`)
	eventuallyOpens(t, client, "10.1.0.0/24")
	for _, assignment := range strings.Fields(exports)[1:] { // for later parts
		name, value, _ := strings.Cut(assignment, "=")
		require.NoError(t, os.Setenv(name, value))
	}
}

// eventuallyOpens waits until tenant A's NetworkPolicy has a CIDR.
func eventuallyOpens(t *testing.T, client *kubernetes.Clientset, cidr string) {
	t.Helper()
	require.Eventually(t, func() bool {
		policy, err := client.NetworkingV1().NetworkPolicies("tenant-a").Get(context.Background(), "egress", metav1.GetOptions{})
		return err == nil && strings.Contains(policy.String(), cidr)
	}, soon, 100*time.Millisecond, "tenant-a's NetworkPolicy does not open %s", cidr)
}

func onboard(t *testing.T, client *kubernetes.Clientset) {
	do(t, "kubectl label namespace tenant-a egress-validation-")
	require.Contains(t, do(t, "make tenant-onboard NS=tenant-a"), "tenant-a is protected")
	output, err := shell("make tenant-onboard NS=tenant-z")
	require.Error(t, err)
	require.Contains(t, output, "there is no namespace tenant-z: run 'kubectl create namespace tenant-z'")
}

// rangesFromFile brings ranges to a cluster without internet. The agent writes them into NetworkPolicies, and the
// webhook gets them from the agent.
func rangesFromFile(t *testing.T, client *kubernetes.Clientset) {
	do(t, "gzip -9nc "+ranges+" >bin/ip-ranges.json.gz; kubectl create configmap aws-ip-ranges -n "+ours+" --from-file=bin/ip-ranges.json.gz --dry-run=client -o yaml | kubectl apply --server-side -f -")
	do(t, "make preflight OVERLAYS=restricted-internet")
	do(t, "make deploy OVERLAYS=restricted-internet")
	eventuallyOpens(t, client, "198.18.0.0/24")
	require.Eventually(t, func() bool {
		output, err := shell("sed 's/us-east-1/us-west-2/' examples/demo/tenant-a.yaml | kubectl apply --dry-run=server -f -")
		return err == nil && strings.Contains(output, "IPv4 addresses")
	}, soon, time.Second, "the webhook does not use the ranges that the agent saves")
}

// hardened checks the running Pods, not the manifests.
func hardened(t *testing.T, client *kubernetes.Clientset) {
	pods, err := client.CoreV1().Pods(ours).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/part-of=egress-control"})
	require.NoError(t, err)
	require.Len(t, pods.Items, 4)
	for _, pod := range pods.Items {
		require.Equal(t, corev1.PodRunning, pod.Status.Phase)
		require.Zero(t, pod.Status.ContainerStatuses[0].RestartCount, pod.Name)
		tokens := 0
		for _, volume := range pod.Spec.Volumes {
			if volume.Projected != nil {
				tokens++
			}
		}
		require.Equal(t, strings.HasPrefix(pod.Name, "egress-agent"), tokens == 1, "%s has a token where it needs one", pod.Name)
	}
	output, err := shell(`kubectl run naughty -n ` + ours + ` --image=x --overrides='{"spec": {"hostNetwork": true}}'`)
	require.Error(t, err, "the namespace enforces Pod Security")
	require.Contains(t, output, `violates PodSecurity "restricted:latest"`)
	status := do(t, "make status")
	require.Regexp(t, `Leader: egress-agent-`, status)
	require.Regexp(t, `Certificate: notAfter=`, status)
	require.Regexp(t, `Policies: 1, NetworkPolicies made of them: 1`, status)
	require.Contains(t, do(t, "make logs"), `"msg":"running"`)
}

// missingImage deploys an image that does not exist. The output gives the reason, and the running Pods stay.
func missingImage(t *testing.T, client *kubernetes.Clientset) {
	output, err := shell("make deploy OVERLAYS=restricted-internet IMG_AGENT=localhost/none:v1 TIMEOUT=10s")
	require.Error(t, err)
	require.Regexp(t, `ErrImagePull|ImagePullBackOff`, output)
	require.Contains(t, output, "failed: Waiting until egress-agent runs")
	do(t, "make deploy OVERLAYS=restricted-internet")
	output, err = shell("make deploy OVERLAYS=nothing")
	require.Error(t, err)
	require.Contains(t, output, "OVERLAYS takes any of: "+strings.TrimSpace(do(t, "cd deploy/components && echo *")))
}

func undeploy(t *testing.T, client *kubernetes.Clientset) {
	before := policies(t, client)
	require.NotEmpty(t, before)
	output := do(t, "make undeploy")
	require.Contains(t, output, fmt.Sprintf("The tenants' %d NetworkPolicies stay", len(before)))
	require.Equal(t, before, policies(t, client))
	left := do(t, "kubectl get clusterroles,clusterrolebindings,validatingwebhookconfigurations,priorityclasses,namespaces -o name")
	require.NotRegexp(t, `/egress`, left)
	do(t, "kubectl apply -n tenant-a -f examples/demo/mistakes.yaml") // no webhook checks it
	do(t, "make undeploy PURGE=1")
	require.Empty(t, policies(t, client))
}

// policies returns the resourceVersion of each NetworkPolicy of the agent.
func policies(t *testing.T, client *kubernetes.Clientset) map[string]string {
	list, err := client.NetworkingV1().NetworkPolicies("").List(context.Background(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=egress-agent"})
	require.NoError(t, err)
	versions := make(map[string]string, len(list.Items))
	for _, policy := range list.Items {
		versions[policy.Namespace+"/"+policy.Name] = policy.ResourceVersion
	}
	return versions
}
