package deploy

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	ossignal "os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/scripts/e2e/harness"
)

// probeKubectl passes all but the client's connections to the real kubectl. It answers these by the current policy, from
// the four words of the file of the client's kind of nodes: without a policy, with one that denies, that allows an
// address, and that allows labels.
const probeKubectl = `#!/bin/bash
[ "$1" != "$FAILS" ] || { echo "the API server is away" >&2; exit 1; }
case "$1 $2" in
"exec -n") ;;
"apply -f") tee "$DATAPLANE/policy" | "$REAL_KUBECTL" "$@"; exit ;;
"kustomize deploy" | "apply --dry-run=server" | "create --validate=false") exit 0 ;; # the rights, which other tests check
"get networkpolicies") printf %s "$OTHERS"; exit ;;
*) exec "$REAL_KUBECTL" "$@" ;;
esac
read -r before denied allowed labels <"$DATAPLANE/${4#deployment/client-}"
case $(cat "$DATAPLANE/policy" 2>/dev/null) in
'') answer=$before ;;
*ipBlock*) answer=$allowed ;;
*matchLabels*) answer=$labels ;;
*) answer=$denied ;;
esac
case $answer in
open) ;;
closed) echo TIMEOUT >&2; exit 1 ;;
*) echo "error: $answer" >&2; exit 1 ;;
esac
`

// probeRun is a preflight with a probe, on a cluster whose Pods and connections the test imitates.
type probeRun struct {
	*exec.Cmd
	output    bytes.Buffer
	dataplane string
}

// newProbeRun prepares a preflight. Each of answers is KIND=BEFORE DENIED ALLOWED LABELS.
func newProbeRun(t *testing.T, environment []string, answers ...string) *probeRun {
	t.Helper()
	kubectl, err := filepath.Abs(harness.ControlPlaneDir + "/kubectl")
	require.NoError(t, err)
	r := &probeRun{Cmd: exec.Command(harness.Root + "/scripts/preflight.sh"), dataplane: t.TempDir()}
	programs := t.TempDir()
	require.NoError(t, os.WriteFile(programs+"/probe-kubectl", []byte(probeKubectl), 0o700))
	require.NoError(t, os.WriteFile(programs+"/sleep", []byte("#!/bin/sh\n[ \"$1\" = 1 ] || exec /bin/sleep \"$@\"\n"), 0o700)) // no pause between two connections
	for _, answer := range answers {
		kind, words, _ := strings.Cut(answer, "=")
		require.NoError(t, os.WriteFile(filepath.Join(r.dataplane, kind), []byte(words+"\n"), 0o600))
	}
	r.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "KUBECTL=probe-kubectl", "REAL_KUBECTL="+kubectl,
		"DATAPLANE="+r.dataplane, "KUBECONFIG="+harness.Control(t).Kubeconfig, "OVERLAYS=", "PROBE=1")
	r.Env = append(r.Env, environment...)
	r.Stdout, r.Stderr = &r.output, &r.output
	r.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return r
}

// lines waits for the end of the run, and returns its lines. The run must have deleted its namespace.
func (r *probeRun) lines(t *testing.T) []string {
	t.Helper()
	_ = r.Wait() // it fails, because this cluster has no DNS
	require.NotContains(t, harness.Kubectl(t, "", "get", "namespaces", "-o", "name"), "egress-probe-", r.output.String())
	return strings.Split(strings.TrimSpace(r.output.String()), "\n")
}

// imitatePods makes the Deployments of probes available, as a cluster with nodes would, until the test ends. The server
// gets the address ip.
func imitatePods(t *testing.T, ip string) {
	t.Helper()
	admin := harness.Control(t).Admin
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	start := func(d appsv1.Deployment) {
		d.Status.AvailableReplicas, d.Status.ReadyReplicas, d.Status.Replicas = 1, 1, 1
		d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue}}
		if d.Name == "server" {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "server", Labels: d.Spec.Template.Labels}, Spec: d.Spec.Template.Spec}
			_, _ = admin.CoreV1().Pods(d.Namespace).Create(ctx, pod, metav1.CreateOptions{})
			pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}}
			if _, err := admin.CoreV1().Pods(d.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err != nil {
				return // the next round tries again
			}
		}
		_, _ = admin.AppsV1().Deployments(d.Namespace).UpdateStatus(ctx, &d, metav1.UpdateOptions{})
	}
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			deployments, err := admin.AppsV1().Deployments("").List(ctx, metav1.ListOptions{})
			if err == nil {
				for _, d := range deployments.Items {
					if strings.HasPrefix(d.Namespace, "egress-probe-") && d.Status.AvailableReplicas == 0 {
						start(d)
					}
				}
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
}

// TestProbeReportsWhatTheDataplaneDoes runs probes on clusters where each kind of nodes does something else.
func TestProbeReportsWhatTheDataplaneDoes(t *testing.T) {
	harness.SkipUnlessAll(t)
	createNodes(t, "managed", "auto", "hybrid")
	imitatePods(t, "10.9.8.7")
	for _, test := range []struct {
		name    string
		answers []string
		want    []string
	}{
		{
			"one enforces",
			[]string{"managed=open closed open open", "auto=open open open open", "hybrid=open closed closed open"},
			[]string{
				"ok       the probe proves that NetworkPolicies are enforced on 1 managed or self-managed node",
				"error    NetworkPolicies are stored and not enforced on 1 Auto Mode node: a Pod there connects although a NetworkPolicy denies it. Use a CNI that enforces them",
				"warning  the probe proves that NetworkPolicies are enforced on 1 Hybrid node, but a CIDR does not open the Pods in it there, as on Cilium",
			},
		},
		{
			"closed",
			[]string{"managed=closed closed open open", "auto=closed closed closed open", "hybrid=closed closed closed closed"},
			[]string{
				"error    a Pod without any NetworkPolicy is denied on 1 managed or self-managed node",
				"error    a Pod without any NetworkPolicy is denied on 1 Auto Mode node",
				"error    the probe proves nothing: a Pod on 1 Hybrid node cannot connect to another Pod",
			},
		},
		{
			"no right to exec",
			[]string{"managed=forbidden"},
			[]string{"preflight.sh: the probe cannot run its client in the Pod of client-managed: error: forbidden"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newProbeRun(t, nil, test.answers...)
			require.NoError(t, r.Start())
			lines := r.lines(t)
			for _, want := range test.want {
				requireLine(t, lines, want)
			}
		})
	}
}

// TestProbeKnowsEKS runs a probe on a cluster of EKS with IPv6, where managed nodes are in strict mode, and nothing
// enforces on the nodes of Auto Mode.
func TestProbeKnowsEKS(t *testing.T) {
	harness.SkipUnlessAll(t)
	imitatePods(t, "fd00::7")
	createNodes(t, "managed", "auto")
	createCRD(t, policyEndpoints)
	createCRD(t, nodeClasses)
	harness.Kubectl(t, strings.NewReplacer("NAME", "aws-node", "VERSION", "v1.20.1", "%mode", "strict", "ENABLED", "true").Replace(daemonSet), "apply", "-f", "-")
	t.Cleanup(func() { harness.Kubectl(t, "", "delete", "daemonset", "-n", "kube-system", "aws-node") })
	r := newProbeRun(t, nil, "managed=closed closed open open", "auto=open open open open")
	require.NoError(t, r.Start())
	lines := r.lines(t)
	requireLine(t, lines, "ok       the probe proves that NetworkPolicies are enforced on 1 managed or self-managed node, and that a Pod without one is denied there (strict mode)")
	requireLine(t, lines, `error    NetworkPolicies are stored and not enforced on 1 Auto Mode node: a Pod there connects although a NetworkPolicy denies it. The control plane made no PolicyEndpoints of it: set enable-network-policy-controller: "true"`)
	policy, err := os.ReadFile(r.dataplane + "/policy")
	require.NoError(t, err)
	require.Contains(t, string(policy), "cidr: fd00::7/128")
}

// TestProbeRecognizesPoliciesOfOthers runs a probe on a cluster that closes each new namespace.
func TestProbeRecognizesPoliciesOfOthers(t *testing.T) {
	harness.SkipUnlessAll(t)
	imitatePods(t, "10.9.8.7")
	r := newProbeRun(t, []string{"OTHERS=default-deny"}, "managed=closed closed open open")
	require.NoError(t, r.Start())
	requireLine(t, r.lines(t), "ok       the probe proves that NetworkPolicies are enforced on 0 managed or self-managed nodes, also these, which others made in its namespace: default-deny")
}

// TestProbeCleansUp interrupts probes, and makes their Pods and their cleanup fail.
func TestProbeCleansUp(t *testing.T) {
	harness.SkipUnlessAll(t)
	start := func(t *testing.T, environment ...string) (r *probeRun, namespace string) {
		t.Helper()
		r = newProbeRun(t, environment)
		require.NoError(t, r.Start())
		require.Eventually(t, func() bool {
			namespace = harness.Kubectl(t, "", "get", "deployments", "-A", "-o", `jsonpath={.items[?(@.metadata.name=="client-managed")].metadata.namespace}`)
			return namespace != ""
		}, harness.Timeout, 50*time.Millisecond)
		return r, namespace
	}
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGHUP} {
		t.Run(fmt.Sprint(signal, " from a terminal"), func(t *testing.T) {
			if ossignal.Ignored(signal) {
				t.Skip("the test runs with this signal ignored, as under nohup, and so would the script")
			}
			r, _ := start(t)
			require.NoError(t, syscall.Kill(-r.Process.Pid, signal))
			requireLine(t, r.lines(t), "==> Deleting the namespace egress-probe-")
			require.Equal(t, 1, r.ProcessState.ExitCode())
		})
	}
	t.Run("SIGTERM, while it would wait for ten minutes", func(t *testing.T) {
		r, _ := start(t, "TIMEOUT=600s")
		require.NoError(t, r.Process.Signal(syscall.SIGTERM))
		requireLine(t, r.lines(t), "==> Deleting the namespace egress-probe-")
		require.Equal(t, 1, r.ProcessState.ExitCode())
	})
	t.Run("Pods that do not start", func(t *testing.T) {
		r, namespace := start(t, "TIMEOUT=5s", "PROBE_IMAGE=registry.example.com/agnhost:v1")
		deployment, err := harness.Control(t).Admin.AppsV1().Deployments(namespace).Get(t.Context(), "server", metav1.GetOptions{})
		require.NoError(t, err)
		template := deployment.Spec.Template
		require.Equal(t, "registry.example.com/agnhost:v1", template.Spec.Containers[0].Image)
		pods := harness.Control(t).Admin.CoreV1().Pods(namespace)
		pod, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "server-1", Labels: template.Labels}, Spec: template.Spec}, metav1.CreateOptions{})
		require.NoError(t, err, "the namespace admits the Pods")
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "probe", State: corev1.ContainerState{
			Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "no such image"}}}}
		_, err = pods.UpdateStatus(t.Context(), pod, metav1.UpdateOptions{})
		require.NoError(t, err)
		lines := r.lines(t)
		requireLine(t, lines, "ImagePullBackOff: no such image")
		requireLine(t, lines, "preflight.sh: the Pods of the probe do not start, for the reasons above. If the nodes cannot pull registry.example.com/agnhost:v1, set PROBE_IMAGE")
	})
	t.Run("a cleanup that fails", func(t *testing.T) {
		r, namespace := start(t, "FAILS=delete")
		t.Cleanup(func() { harness.Kubectl(t, "", "delete", "namespace", namespace) })
		require.NoError(t, r.Process.Signal(syscall.SIGTERM))
		_ = r.Wait()
		requireLine(t, strings.Split(r.output.String(), "\n"), "error    the namespace "+namespace+" of the probe is not deleted: run 'kubectl delete namespace "+namespace+"'")
	})
}
