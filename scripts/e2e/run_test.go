package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/scripts/e2e/cluster"
)

// soon is how long a test waits for what takes milliseconds on an idle machine.
const soon = 30 * time.Second

// process is one of the built binaries, running.
type process struct {
	command *exec.Cmd
	health  string // the address of /readyz and /metrics
	log     string
	stopped bool
}

// binaries is the folder of the programs: where E2E_BIN names it, such as one with the race detector.
func binaries() string {
	if dir := os.Getenv("E2E_BIN"); dir != "" {
		return dir
	}
	return bin
}

// start runs a binary until it is ready, and stops it with the test.
func start(t testing.TB, program string, args ...string) *process {
	t.Helper()
	healthAddr := freeAddress(t)
	log, err := os.CreateTemp(control.Dir, program+"-*.log")
	require.NoError(t, err)
	defer log.Close()
	p := &process{health: healthAddr, log: log.Name(), command: exec.Command(filepath.Join(binaries(), program), append(args, "--http-addr", healthAddr)...)}
	p.command.Stdout, p.command.Stderr = log, log
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, p.command.Start())
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("log of %s:\n%s", program, p.logged(t))
		}
	})
	client := &http.Client{Timeout: time.Second}
	require.Eventually(t, func() bool {
		response, err := client.Get("http://" + healthAddr + "/readyz")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK
	}, soon, 20*time.Millisecond, "%s is not ready", program)
	return p
}

// stop asks the process to stop, and requires that it does so cleanly.
func (p *process) stop(t testing.TB) {
	if p.stopped {
		return
	}
	p.stopped = true
	require.NoError(t, p.command.Process.Signal(syscall.SIGTERM))
	require.NoError(t, p.command.Wait(), "a stop is clean: exit status 0")
}

func (p *process) logged(t testing.TB) string {
	data, err := os.ReadFile(p.log)
	require.NoError(t, err)
	return string(data)
}

// scraper keeps no connection: none is to show in what it reads.
var scraper = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// metric is the value of a series, as /metrics writes its name and labels.
func (p *process) metric(t testing.TB, series string) float64 {
	t.Helper()
	response, err := scraper.Get("http://" + p.health + "/metrics")
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			require.NoError(t, err)
			return number
		}
	}
	require.FailNow(t, "no series "+series, string(body))
	return 0
}

func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// startAgent runs egress-agent with exactly the rights that deploy/ gives it. The ranges it keeps go with
// the test.
func startAgent(t testing.TB, args ...string) *process {
	t.Helper()
	kubeconfig, err := control.ServiceAccountKubeconfig(t.Context(), "egress-system", "egress-agent")
	require.NoError(t, err)
	t.Cleanup(func() { forgetRanges(t) })
	return start(t, "egress-agent", append([]string{"--kubeconfig", kubeconfig, "--ip-family", "ipv4", "--leader-elect=false"}, args...)...)
}

// forgetRanges deletes what an agent keeps of the ranges.
func forgetRanges(t testing.TB) {
	t.Helper()
	err := control.Admin.CoreV1().ConfigMaps("egress-system").Delete(context.Background(), "egress-ranges", metav1.DeleteOptions{})
	if !apierrors.IsNotFound(err) {
		require.NoError(t, err)
	}
}

// kubectl runs the real one as administrator, requires that it succeeds and returns its output.
func kubectl(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	stdout, stderr, err := tryKubectl(stdin, args...)
	require.NoError(t, err, "kubectl %s: %s", strings.Join(args, " "), stderr)
	return stdout
}

func tryKubectl(stdin string, args ...string) (stdout, stderr string, err error) {
	command := exec.Command(filepath.Join(programs, "kubectl"), args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+control.Kubeconfig)
	command.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	err = command.Run()
	return out.String(), errs.String(), err
}

// namespace makes a namespace, with labels such as a=b, that goes with the test.
func namespace(t *testing.T, name string, labels ...string) {
	t.Helper()
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: make(map[string]string)}}
	for _, label := range labels {
		key, value, _ := strings.Cut(label, "=")
		object.Labels[key] = value
	}
	namespaces := control.Admin.CoreV1().Namespaces()
	_, err := namespaces.Create(t.Context(), object, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := namespaces.Delete(context.Background(), name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
			require.NoError(t, err)
		}
	})
}

// manifest is a policy ConfigMap.
func manifest(namespace, name, policy string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\n  namespace: %s\n  labels: {egress-controller: managed}\ndata:\n  policy.json: |\n    %s\n",
		name, namespace, strings.ReplaceAll(policy, "\n", "\n    "))
}

// getPolicy returns a NetworkPolicy, or nil where there is none.
func getPolicy(t *testing.T, namespace, name string) *networkingv1.NetworkPolicy {
	t.Helper()
	policy, err := control.Admin.NetworkingV1().NetworkPolicies(namespace).Get(context.Background(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(t, err)
	return policy
}

// eventuallyPolicy waits until a NetworkPolicy, which may be nil, is as it should be, and returns it.
func eventuallyPolicy(t *testing.T, namespace, name, what string, ok func(*networkingv1.NetworkPolicy) bool) *networkingv1.NetworkPolicy {
	t.Helper()
	var policy *networkingv1.NetworkPolicy
	deadline := time.Now().Add(soon)
	for policy = getPolicy(t, namespace, name); !ok(policy); policy = getPolicy(t, namespace, name) {
		if time.Now().After(deadline) {
			require.FailNow(t, "NetworkPolicy "+namespace+"/"+name+" is not "+what, "%+v", policy)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return policy
}

func exists(policy *networkingv1.NetworkPolicy) bool { return policy != nil }
func gone(policy *networkingv1.NetworkPolicy) bool   { return policy == nil }

// opens says whether any rule of the policy has exactly this CIDR for a peer.
func opens(policy *networkingv1.NetworkPolicy, cidr string) bool {
	if policy == nil {
		return false
	}
	for _, rule := range policy.Spec.Egress {
		for _, peer := range rule.To {
			if peer.IPBlock != nil && peer.IPBlock.CIDR == cidr {
				return true
			}
		}
	}
	return false
}

// writesSince returns what the agent has written to some namespaces since a mark. Those of other tests
// may still be going.
func writesSince(t *testing.T, mark cluster.Mark, namespaces ...string) []string {
	t.Helper()
	all, err := control.Writes(mark, "egress-agent")
	require.NoError(t, err)
	return slices.DeleteFunc(all, func(write string) bool {
		return !slices.ContainsFunc(namespaces, func(namespace string) bool { return strings.Contains(write, " "+namespace+"/") })
	})
}

// networkPolicyWrites is writesSince, of NetworkPolicies alone.
func networkPolicyWrites(t *testing.T, mark cluster.Mark, namespaces ...string) []string {
	t.Helper()
	return slices.DeleteFunc(writesSince(t, mark, namespaces...), func(write string) bool { return !strings.Contains(write, " networkpolicies ") })
}

// opened is opens, for eventuallyPolicy.
func opened(cidr string) func(*networkingv1.NetworkPolicy) bool {
	return func(policy *networkingv1.NetworkPolicy) bool { return opens(policy, cidr) }
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, soon, 20*time.Millisecond, "not so: %s", what)
}

// eventuallyEvent waits for an Event on a ConfigMap.
func eventuallyEvent(t *testing.T, namespace, name, reason string) corev1.Event {
	t.Helper()
	return eventuallyEventOn(t, namespace, "ConfigMap", name, reason, func(corev1.Event) bool { return true })
}

func eventuallyEventOn(t *testing.T, namespace, kind, name, reason string, ok func(corev1.Event) bool) corev1.Event {
	t.Helper()
	var found corev1.Event
	require.Eventually(t, func() bool {
		events, err := control.Admin.CoreV1().Events(namespace).List(context.Background(), metav1.ListOptions{
			FieldSelector: "involvedObject.kind=" + kind + ",involvedObject.name=" + name + ",reason=" + reason,
		})
		require.NoError(t, err)
		i := slices.IndexFunc(events.Items, ok)
		if i >= 0 {
			found = events.Items[i]
		}
		return i >= 0
	}, soon, 20*time.Millisecond, "no such Event %s on %s %s/%s", reason, kind, namespace, name)
	return found
}
