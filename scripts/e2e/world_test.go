package e2e

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
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

// world is a number of policies, whose NetworkPolicies are watched from the beginning.
type world struct {
	t          *testing.T
	name       string
	namespaces int
	begun      sync.WaitGroup
	marks      int // policies that rests has put
	mu         sync.Mutex
	broken     []string // what was never to happen
	versions   int      // versions of a policy that may be open: those below
	recreation bool     // a NetworkPolicy may go and come again: its ConfigMap did
}

func newWorld(t *testing.T, name string, namespaces int) *world {
	t.Helper()
	long(t)
	w := &world{t: t, name: name, namespaces: namespaces}
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

// begin puts policies while the test goes on; rests waits for it.
func (w *world) begin(first, last, version int) {
	w.begun.Go(func() { w.put(first, last, version) })
}

// put creates or updates the policies from first to last, the last not included, eight at a time. In a namespace that
// goes, or is gone, there are none to put.
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
		if apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
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

// settles waits until every policy has exactly the NetworkPolicy that it renders to, and there is no other.
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
				digests[policy.Namespace+"/"+policy.Name] = netpol.SpecDigestOf(policy.Spec)
			}
		}
		for _, configMap := range configMaps.Items {
			key := configMap.Namespace + "/" + configMap.Name
			if !strings.HasPrefix(key, "fault-"+w.name+"-") {
				continue
			}
			compiled := netpol.CompileConfigMap(&configMap, netpol.Inputs{Table: table, Options: rules})
			if compiled.Problems != nil || digests[key] != netpol.SpecDigestOf(compiled.Spec()) {
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
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Empty(w.t, w.broken)
}

// writes returns what the agent has written to the world's NetworkPolicies since a mark, but for what failed: what it
// sends while its caches are behind, by the version it was decided on.
func (w *world) writes(mark cluster.Mark) []string {
	w.t.Helper()
	var namespaces []string
	for i := range w.namespaces {
		namespaces = append(namespaces, w.namespace(i))
	}
	return slices.DeleteFunc(networkPolicyWrites(w.t, mark, namespaces...), func(write string) bool { return strings.HasSuffix(write, cluster.Failed) })
}

// rests settles, and then sees nothing written for a while: in the end a minute, as long as a retry may wait. It begins
// once the agent has seen all that was done before, of which the last is another policy, in the last namespace.
func (w *world) rests(quiet time.Duration) {
	w.t.Helper()
	w.begun.Wait()
	w.marks++
	last := (5000+w.marks)*w.namespaces - 1
	w.put(last, last+1, 0)
	made := func(policy networkingv1.NetworkPolicy) bool { return policy.Name == policyName(last) }
	require.Eventually(w.t, func() bool { return w.count(made) == 1 }, 2*time.Minute, 100*time.Millisecond, "the agent sees nothing of it")
	w.settles()
	mark, err := control.Mark()
	require.NoError(w.t, err)
	time.Sleep(quiet)
	w.settles()
	require.Empty(w.t, w.writes(mark), "all is as it should be")
}
