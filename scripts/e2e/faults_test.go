package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/scripts/e2e/cluster"
)

// long skips a test that takes minutes, but for where E2E_ALL is set, as make test-all does.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("E2E_ALL") == "" {
		t.Skip("it takes long: make test-all runs it")
	}
}

// world is a number of policies, whose NetworkPolicies are watched from the beginning.
type world struct {
	t          *testing.T
	name       string
	namespaces int
	mu         sync.Mutex
	broken     []string      // what was never to happen
	versions   int           // versions of a policy that may be open: those below
	recreation bool          // a NetworkPolicy may go and come again: its ConfigMap did
	quiet      time.Duration // for which nothing may be written in the end
}

func newWorld(t *testing.T, name string, namespaces int) *world {
	t.Helper()
	long(t)
	w := &world{t: t, name: name, namespaces: namespaces, quiet: 10 * time.Second}
	for i := range namespaces {
		namespace(t, w.namespace(i))
	}
	w.watch()
	return w
}

func (w *world) namespace(i int) string { return fmt.Sprintf("fault-%s-%d", w.name, i%w.namespaces) }

// policyOf is the document of policy i in one of its versions.
func policyOf(i, version int) string {
	return fmt.Sprintf(`{"allowedDestinations": [{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [%d]},
 {"name": "db", "cidr": "10.%d.%d.0/24", "ports": [5432]}]}`, 443+version, i>>8&255, i&255)
}

func policyName(i int) string { return fmt.Sprintf("policy-%d", i) }

// put creates or updates the policies from first to last, the last not included, eight at a time.
func (w *world) put(first, last, version int) {
	w.mu.Lock()
	w.versions = max(w.versions, version+1)
	w.mu.Unlock()
	w.each(first, last, func(i int) error {
		configMaps := control.Admin.CoreV1().ConfigMaps(w.namespace(i))
		configMap := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: policyName(i), Labels: map[string]string{"egress-controller": "managed"}},
			Data:       map[string]string{"policy.json": policyOf(i, version)},
		}
		_, err := configMaps.Create(context.Background(), configMap, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			_, err = configMaps.Update(context.Background(), configMap, metav1.UpdateOptions{})
		}
		return err
	})
}

func (w *world) remove(first, last int) {
	w.each(first, last, func(i int) error {
		return control.Admin.CoreV1().ConfigMaps(w.namespace(i)).Delete(context.Background(), policyName(i), metav1.DeleteOptions{})
	})
}

// each does something with each number, for as long as the API server may be away.
func (w *world) each(first, last int, do func(i int) error) {
	w.t.Helper()
	err := cluster.Each(last-first, func(i int) error {
		deadline := time.Now().Add(time.Minute)
		err := do(first + i)
		for ; err != nil && time.Now().Before(deadline); err = do(first + i) {
			time.Sleep(100 * time.Millisecond)
		}
		return err
	})
	if err != nil {
		w.t.Error(err)
	}
}

// watch sees every version of every NetworkPolicy of the world: none may open more than the versions of its
// policy do together, and none may be deleted while its ConfigMap is there.
func (w *world) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	allowed := make(map[string]bool)
	table, err := awsranges.ReadFile(ranges)
	require.NoError(w.t, err)
	for _, prefix := range table.Lookup("S3", "us-east-1") {
		allowed[prefix.String()] = true
	}
	check := func(event watch.Event) {
		policy, ok := event.Object.(*networkingv1.NetworkPolicy)
		if !ok || !strings.HasPrefix(policy.Namespace, "fault-"+w.name+"-") {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if event.Type == watch.Deleted {
			if _, err := control.Admin.CoreV1().ConfigMaps(policy.Namespace).Get(ctx, policy.Name, metav1.GetOptions{}); err == nil && !w.recreation {
				w.broken = append(w.broken, "deleted with its ConfigMap there: "+policy.Namespace+"/"+policy.Name)
			}
			return
		}
		number, err := strconv.Atoi(strings.TrimPrefix(policy.Name, "policy-"))
		own := fmt.Sprintf("10.%d.%d.0/24", number>>8&255, number&255)
		for _, rule := range policy.Spec.Egress {
			if err != nil || !w.mayOpen(rule, own, allowed) {
				w.broken = append(w.broken, fmt.Sprintf("%s/%s opens %+v", policy.Namespace, policy.Name, rule))
			}
		}
	}
	list, err := control.Admin.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{})
	require.NoError(w.t, err)
	version := list.ResourceVersion
	go func() {
		for ctx.Err() == nil {
			watcher, err := control.Admin.NetworkingV1().NetworkPolicies("").Watch(ctx, metav1.ListOptions{ResourceVersion: version})
			if err != nil {
				time.Sleep(100 * time.Millisecond)
				continue
			}
			for event := range watcher.ResultChan() {
				if policy, ok := event.Object.(*networkingv1.NetworkPolicy); ok {
					version = policy.ResourceVersion
				}
				check(event)
			}
		}
	}()
}

// mayOpen says whether a version of a policy has a rule such as this, or the rule is that for DNS.
func (w *world) mayOpen(rule networkingv1.NetworkPolicyEgressRule, own string, s3 map[string]bool) bool {
	if len(rule.To) == 0 || len(rule.Ports) == 0 {
		return false
	}
	for _, peer := range rule.To {
		for _, port := range rule.Ports {
			number, of := port.Port.IntValue(), peer.IPBlock
			dns := of == nil && peer.PodSelector != nil && number == 53
			if !dns && (of == nil || port.EndPort != nil ||
				!(of.CIDR == own && number == 5432) && !(s3[of.CIDR] && number >= 443 && number < 443+w.versions)) {
				return false
			}
		}
	}
	return true
}

// written counts the NetworkPolicies there are.
func (w *world) written() int {
	return w.count(func(networkingv1.NetworkPolicy) bool { return true })
}

// wide counts the NetworkPolicies after the first write of a large change, and before the second.
func (w *world) wide() int {
	const rules = 3 // for DNS, S3 and the database
	return w.count(func(policy networkingv1.NetworkPolicy) bool { return len(policy.Spec.Egress) > rules })
}

// count is -1 while the API server is away.
func (w *world) count(is func(networkingv1.NetworkPolicy) bool) int {
	list, err := control.Admin.NetworkingV1().NetworkPolicies("").List(context.Background(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=egress-agent"})
	if err != nil {
		return -1
	}
	return len(slices.DeleteFunc(list.Items, func(p networkingv1.NetworkPolicy) bool {
		return !strings.HasPrefix(p.Namespace, "fault-"+w.name+"-") || !is(p)
	}))
}

// settles waits until every policy has exactly the NetworkPolicy that it renders to, and there is no other;
// and then sees nothing written for a while.
func (w *world) settles() {
	w.t.Helper()
	table, err := awsranges.ReadFile(ranges)
	require.NoError(w.t, err)
	rules := netpol.Options{Family: netpol.IPv4, AllowDNS: true, MaxPortSlots: netpol.DefaultPortSlots}
	var difference string
	same := func() bool {
		configMaps, err := control.Admin.CoreV1().ConfigMaps("").List(context.Background(), metav1.ListOptions{LabelSelector: "egress-controller=managed"})
		if err != nil {
			return false
		}
		policies, err := control.Admin.NetworkingV1().NetworkPolicies("").List(context.Background(), metav1.ListOptions{})
		if err != nil {
			return false
		}
		digests := make(map[string]string)
		for _, policy := range policies.Items {
			if strings.HasPrefix(policy.Namespace, "fault-"+w.name+"-") {
				digests[policy.Namespace+"/"+policy.Name] = netpol.Digest(policy.Spec)
			}
		}
		for _, configMap := range configMaps.Items {
			key := configMap.Namespace + "/" + configMap.Name
			if !strings.HasPrefix(key, "fault-"+w.name+"-") {
				continue
			}
			result, problems := netpol.Evaluate(&configMap, table, rules)
			if problems != nil || digests[key] != netpol.Digest(result.Spec) {
				difference = key + " is not as it renders"
				return false
			}
			delete(digests, key)
		}
		for key := range digests {
			difference = key + " has no ConfigMap"
		}
		return len(digests) == 0
	}
	deadline := time.Now().Add(2 * time.Minute)
	for !same() {
		if time.Now().After(deadline) {
			require.FailNow(w.t, "it does not settle", difference)
		}
		time.Sleep(200 * time.Millisecond)
	}
	var namespaces []string
	for i := range w.namespaces {
		namespaces = append(namespaces, w.namespace(i))
	}
	mark, err := control.Mark()
	require.NoError(w.t, err)
	time.Sleep(w.quiet)
	require.True(w.t, same(), difference)
	// What the agent sends while its caches are behind fails, by the version it was decided on.
	writes := slices.DeleteFunc(networkPolicyWrites(w.t, mark, namespaces...), func(write string) bool { return strings.HasSuffix(write, cluster.Failed) })
	require.Empty(w.t, writes, "all is as it should be")
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Empty(w.t, w.broken)
}

func fieldsAsInts(t *testing.T, text string) []int {
	var numbers []int
	for _, field := range strings.Fields(text) {
		n, err := strconv.Atoi(field)
		require.NoError(t, err)
		numbers = append(numbers, n)
	}
	return numbers
}

func procPath(pid int, file string) string { return fmt.Sprintf("/proc/%d/%s", pid, file) }

func faultAgent(t *testing.T, args ...string) *process {
	t.Helper()
	return startAgent(t, append([]string{"--ranges-file", ranges}, args...)...)
}

func TestFaultKilled(t *testing.T) {
	w := newWorld(t, "killed", 20)
	w.put(0, 1000, 0)
	for _, after := range []int{50, 300, 700} {
		p := faultAgent(t)
		eventually(t, "some are written", func() bool { return w.written() >= after })
		p.kill(t)
	}
	p := faultAgent(t)
	w.settles()
	go w.put(0, 1000, 1)
	time.Sleep(500 * time.Millisecond)
	p.kill(t)
	faultAgent(t)
	eventually(t, "the edits are all made", func() bool { return w.written() == 1000 })
	w.settles()
}

// TestFaultKilledBetweenWrites kills the agent after the first write of changes that take two, whose second is
// then for its successor.
func TestFaultKilledBetweenWrites(t *testing.T) {
	w := newWorld(t, "between", 10)
	arguments := []string{"--chunk-peers", "1", "--settle", "3s"}
	p := faultAgent(t, arguments...)
	w.put(0, 100, 0)
	eventually(t, "all are written", func() bool { return w.written() == 100 })
	for version, after := range []int{1, 30, 60, 90} {
		eventually(t, "the change before is over", func() bool { return w.wide() == 0 })
		go w.put(0, 100, version+1)
		eventually(t, "some are wide", func() bool { return w.wide() >= after })
		p.kill(t)
		require.Positive(t, w.wide(), "it was between two writes")
		p = faultAgent(t, arguments...)
	}
	w.quiet = time.Minute
	w.settles()
}

func TestFaultAPIServerKilled(t *testing.T) {
	w := newWorld(t, "apiserver", 10)
	w.put(0, 300, 0)
	faultAgent(t)
	go w.put(300, 600, 0)
	eventually(t, "some are written", func() bool { return w.written() >= 100 })
	restartAPIServer(t)
	eventually(t, "all are written", func() bool { return w.written() == 600 })
	w.settles()
}

// restartAPIServer kills the API server, and starts it again as it was.
func restartAPIServer(t *testing.T) {
	t.Helper()
	pids := children(t, "kube-apiserver")
	require.Len(t, pids, 1)
	commandLine, err := os.ReadFile(procPath(pids[0], "cmdline"))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pids[0], syscall.SIGKILL))
	time.Sleep(2 * time.Second)
	arguments := strings.Split(strings.TrimSuffix(string(commandLine), "\x00"), "\x00")
	again := exec.Command(arguments[0], arguments[1:]...)
	again.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, again.Start())
	require.Eventually(t, func() bool {
		_, err := control.Admin.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(context.Background())
		return err == nil
	}, time.Minute, 200*time.Millisecond)
}

func TestFaultEtcdPaused(t *testing.T) {
	w := newWorld(t, "etcd", 10)
	w.put(0, 200, 0)
	faultAgent(t)
	pids := children(t, "etcd")
	require.Len(t, pids, 1)
	eventually(t, "some are written", func() bool { return w.written() >= 20 })
	require.NoError(t, syscall.Kill(pids[0], syscall.SIGSTOP))
	time.Sleep(20 * time.Second)
	require.NoError(t, syscall.Kill(pids[0], syscall.SIGCONT))
	w.put(200, 300, 0)
	w.settles()
}

func TestFaultWatchesCut(t *testing.T) {
	w := newWorld(t, "watches", 10)
	p := newProxy(t)
	p.watchFor.Store(int64(time.Second))
	faultAgent(t, "--kubeconfig", p.kubeconfig)
	// The client waits longer from one to the next, so it is the number that ends it.
	for version, until := 0, time.Now().Add(3*time.Minute); p.cut.Load() <= 5; version++ {
		require.True(t, time.Now().Before(until), "only %d watches were cut", p.cut.Load())
		w.put(0, 200, version%5)
		time.Sleep(time.Second)
	}
	w.remove(150, 200)
	w.settles()
}

func TestFaultRequestsFail(t *testing.T) {
	w := newWorld(t, "requests", 10)
	p := newProxy(t)
	p.failing.Store(30)
	p.delay.Store(int64(2 * time.Second))
	faultAgent(t, "--kubeconfig", p.kubeconfig)
	w.put(0, 300, 0)
	w.put(0, 100, 1)
	w.remove(250, 300)
	w.quiet = time.Minute // as long as a retry may wait
	w.settles()
	require.Greater(t, p.refused.Load(), int64(100))
	require.Greater(t, p.delayed.Load(), int64(10))
}

func TestFaultTwoAgents(t *testing.T) {
	for _, elect := range []bool{true, false} {
		w := newWorld(t, fmt.Sprintf("two-%t", elect), 10)
		arguments := []string{"--leader-elect=" + strconv.FormatBool(elect)}
		faultAgent(t, arguments...)
		w.put(0, 100, 0)
		faultAgent(t, arguments...)
		w.put(50, 200, 1)
		w.quiet = time.Minute
		w.settles()
	}
}

func TestFaultLeaderFrozen(t *testing.T) {
	w := newWorld(t, "frozen", 10)
	first := faultAgent(t, "--leader-elect")
	w.put(0, 100, 0)
	w.settles()
	second := faultAgent(t, "--leader-elect")
	require.NoError(t, first.command.Process.Signal(syscall.SIGSTOP))
	w.put(0, 100, 1)
	w.settles()
	require.Contains(t, second.logged(t), "msg=running")
	before := strings.Count(first.logged(t), "NetworkPolicy written")
	w.put(0, 100, 2)
	require.NoError(t, first.command.Process.Signal(syscall.SIGCONT))
	first.stopped = true
	ended := make(chan error, 1)
	go func() { ended <- first.command.Wait() }()
	select {
	case err := <-ended:
		require.Error(t, err, "a lost Lease ends the process, and not as if all were well")
	case <-time.After(soon):
		require.FailNow(t, "it goes on")
	}
	require.Equal(t, before, strings.Count(first.logged(t), "NetworkPolicy written"), "it writes nothing more")
	require.Contains(t, first.logged(t), "the Lease is lost")
	w.settles()
}

func TestFaultRBACWithdrawn(t *testing.T) {
	w := newWorld(t, "rbac", 10)
	p := faultAgent(t)
	w.put(0, 100, 0)
	kubectl(t, "", "delete", "clusterrolebinding", "egress-agent")
	w.put(0, 150, 1)
	eventually(t, "it is refused", func() bool { return strings.Contains(p.logged(t), "forbidden") })
	time.Sleep(3 * time.Second)
	kubectl(t, "", "apply", "-f", root+"/deploy/base/agent-rbac.yaml")
	w.settles()
}

func TestFaultNamespaceDeleted(t *testing.T) {
	w := newWorld(t, "namespace", 10)
	w.recreation = true
	p := faultAgent(t)
	go w.put(0, 100, 0)
	eventually(t, "some are written", func() bool { return w.written() >= 20 })
	for i := range 3 {
		kubectl(t, "", "delete", "namespace", w.namespace(i), "--wait=false")
	}
	eventually(t, "the namespaces are gone", func() bool {
		_, err := control.Admin.CoreV1().Namespaces().Get(context.Background(), w.namespace(2), metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	w.settles()
	require.NotContains(t, p.logged(t), "will retry", "it gives up quietly")
}

func TestFaultChurn(t *testing.T) {
	w := newWorld(t, "churn", 5)
	w.recreation = true
	faultAgent(t)
	for range 5 {
		w.put(0, 100, 0)
		w.remove(0, 100)
		w.put(0, 100, 1)
		w.remove(50, 100)
	}
	w.settles()
}

// TestFaultClockJumps holds the clock of the embedded agent, which dates what is held; no other is read.
func TestFaultClockJumps(t *testing.T) {
	w := newWorld(t, "clock", 5)
	clock, s := newClock(time.Unix(1_700_000_000, 0)), newSource(t)
	s.answers(document([]byte(sampleDocument(t, "ip-ranges.json")), clock.now()))
	e := embed(t, s, withClock(clock))
	w.put(0, 50, 0)
	for _, jump := range []time.Duration{time.Hour, -time.Hour, -time.Hour, time.Hour} {
		clock.advance(jump)
		e.looked(t, "unchanged")
		w.put(0, 50, 1)
	}
	w.settles()
}
