package harness

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

// World is a set of numbered policies in several namespaces. It watches their NetworkPolicies from the start, and
// records every version that opens too much.
type World struct {
	// AllowRecreation permits the deletion of a NetworkPolicy while its ConfigMap exists. A test sets it if it deletes
	// and recreates ConfigMaps.
	AllowRecreation bool

	t          *testing.T
	name       string
	namespaces int
	background sync.WaitGroup
	markCount  int // the number of policies that AwaitRest has added

	mu           sync.Mutex
	violations   []string
	versionCount int // a NetworkPolicy may open the versions 0 to versionCount-1 of its policy
}

// NewWorld creates a world with its namespaces. Unless E2E_ALL is set, it skips the test, because a test with a world
// takes minutes.
func NewWorld(t *testing.T, name string, namespaces int) *World {
	t.Helper()
	SkipUnlessAll(t)
	w := &World{t: t, name: name, namespaces: namespaces}
	for i := range namespaces {
		CreateNamespace(t, w.Namespace(i))
	}
	w.watch()
	return w
}

// Namespace returns the namespace of policy i.
func (w *World) Namespace(i int) string { return fmt.Sprintf("fault-%s-%d", w.name, i%w.namespaces) }

// worldPolicy returns a version of policy i. The versions differ in a port of S3.
func worldPolicy(i, version int) string {
	return fmt.Sprintf(`{"allowedDestinations": [{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [%d]},
 {"name": "db", "cidr": "10.%d.%d.0/24", "ports": [5432]}]}`, 443+version, i>>8&255, i&255)
}

func worldPolicyName(i int) string { return fmt.Sprintf("policy-%d", i) }

// PutInBackground calls Put in a goroutine. AwaitRest waits for it.
func (w *World) PutInBackground(first, last, version int) {
	w.background.Go(func() { w.Put(first, last, version) })
}

// Put creates or updates the policies first to last-1, eight at a time. It skips a policy whose namespace is
// terminating or does not exist.
func (w *World) Put(first, last, version int) {
	w.mu.Lock()
	w.versionCount = max(w.versionCount, version+1)
	w.mu.Unlock()
	w.each(first, last, func(i int) error {
		configMaps := Control(w.t).Admin.CoreV1().ConfigMaps(w.Namespace(i))
		configMap := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: worldPolicyName(i), Labels: map[string]string{"egress-controller": "managed"}},
			Data:       map[string]string{"policy.json": worldPolicy(i, version)},
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

// Remove deletes the ConfigMaps of the policies first to last-1.
func (w *World) Remove(first, last int) {
	w.each(first, last, func(i int) error {
		return Control(w.t).Admin.CoreV1().ConfigMaps(w.Namespace(i)).Delete(context.Background(), worldPolicyName(i), metav1.DeleteOptions{})
	})
}

// each calls action for each number from first to last-1. It retries a failed call for a minute, because the API server
// may be down.
func (w *World) each(first, last int, action func(i int) error) {
	w.t.Helper()
	err := cluster.Each(last-first, func(i int) error {
		deadline := time.Now().Add(time.Minute)
		err := action(first + i)
		for ; err != nil && time.Now().Before(deadline); err = action(first + i) {
			time.Sleep(100 * time.Millisecond)
		}
		return err
	})
	if err != nil {
		w.t.Error(err)
	}
}

// watch checks every version of every NetworkPolicy of the world. A version may open only what the versions of its
// policy open. A NetworkPolicy must not be deleted while its ConfigMap exists.
func (w *World) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	s3 := make(map[string]bool) // the CIDRs of S3
	table, err := awsranges.ReadFile(RangesFile)
	require.NoError(w.t, err)
	for _, prefix := range table.Lookup("S3", "us-east-1") {
		s3[prefix.String()] = true
	}
	check := func(event watch.Event) {
		policy, ok := event.Object.(*networkingv1.NetworkPolicy)
		if !ok || !strings.HasPrefix(policy.Namespace, "fault-"+w.name+"-") {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if event.Type == watch.Deleted {
			if _, err := Control(w.t).Admin.CoreV1().ConfigMaps(policy.Namespace).Get(ctx, policy.Name, metav1.GetOptions{}); err == nil && !w.AllowRecreation {
				w.violations = append(w.violations, "deleted while its ConfigMap exists: "+policy.Namespace+"/"+policy.Name)
			}
			return
		}
		number, err := strconv.Atoi(strings.TrimPrefix(policy.Name, "policy-"))
		ownCIDR := fmt.Sprintf("10.%d.%d.0/24", number>>8&255, number&255)
		for _, rule := range policy.Spec.Egress {
			if err != nil || !w.mayOpen(rule, ownCIDR, s3) {
				w.violations = append(w.violations, fmt.Sprintf("%s/%s opens %+v", policy.Namespace, policy.Name, rule))
			}
		}
	}
	list, err := Control(w.t).Admin.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{})
	require.NoError(w.t, err)
	version := list.ResourceVersion
	go func() {
		for ctx.Err() == nil {
			watcher, err := Control(w.t).Admin.NetworkingV1().NetworkPolicies("").Watch(ctx, metav1.ListOptions{ResourceVersion: version})
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

// mayOpen reports whether the rule is the DNS rule, or the rule of a version of the policy. ownCIDR is the CIDR that
// only this policy opens. s3 has the CIDRs of S3.
func (w *World) mayOpen(rule networkingv1.NetworkPolicyEgressRule, ownCIDR string, s3 map[string]bool) bool {
	if len(rule.To) == 0 || len(rule.Ports) == 0 {
		return false
	}
	for _, peer := range rule.To {
		for _, port := range rule.Ports {
			number, block := port.Port.IntValue(), peer.IPBlock
			isDNS := block == nil && peer.PodSelector != nil && number == 53
			if !isDNS && (block == nil || port.EndPort != nil ||
				!(block.CIDR == ownCIDR && number == 5432) && !(s3[block.CIDR] && number >= 443 && number < 443+w.versionCount)) {
				return false
			}
		}
	}
	return true
}

// WrittenCount returns the number of NetworkPolicies, or -1 if the API server does not answer.
func (w *World) WrittenCount() int {
	return w.count(func(networkingv1.NetworkPolicy) bool { return true })
}

// WidenedCount returns the number of NetworkPolicies between the two writes of a large change, or -1 if the API server
// does not answer.
func (w *World) WidenedCount() int {
	const ruleCount = 3 // for DNS, S3 and the database
	return w.count(func(policy networkingv1.NetworkPolicy) bool { return len(policy.Spec.Egress) > ruleCount })
}

// count returns the number of NetworkPolicies for which counts returns true, or -1 if the API server does not answer.
func (w *World) count(counts func(networkingv1.NetworkPolicy) bool) int {
	list, err := Control(w.t).Admin.NetworkingV1().NetworkPolicies("").List(context.Background(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=egress-agent"})
	if err != nil {
		return -1
	}
	return len(slices.DeleteFunc(list.Items, func(p networkingv1.NetworkPolicy) bool {
		return !strings.HasPrefix(p.Namespace, "fault-"+w.name+"-") || !counts(p)
	}))
}

// AwaitSettled waits until every policy has exactly the NetworkPolicy that it compiles to, and no other NetworkPolicy
// exists. It requires that watch has recorded no violation.
func (w *World) AwaitSettled() {
	w.t.Helper()
	table, err := awsranges.ReadFile(RangesFile)
	require.NoError(w.t, err)
	options := netpol.Options{Family: netpol.IPv4, AllowDNS: true, MaxPortSlots: netpol.DefaultPortSlots}
	var difference string
	isSettled := func() bool {
		configMaps, err := Control(w.t).Admin.CoreV1().ConfigMaps("").List(context.Background(), metav1.ListOptions{LabelSelector: "egress-controller=managed"})
		if err != nil {
			return false
		}
		networkPolicies, err := Control(w.t).Admin.NetworkingV1().NetworkPolicies("").List(context.Background(), metav1.ListOptions{})
		if err != nil {
			return false
		}
		digests := make(map[string]string)
		for _, policy := range networkPolicies.Items {
			if strings.HasPrefix(policy.Namespace, "fault-"+w.name+"-") {
				digests[policy.Namespace+"/"+policy.Name] = netpol.SpecDigestOf(policy.Spec)
			}
		}
		for _, configMap := range configMaps.Items {
			key := configMap.Namespace + "/" + configMap.Name
			if !strings.HasPrefix(key, "fault-"+w.name+"-") {
				continue
			}
			compiled := netpol.CompileConfigMap(&configMap, netpol.Inputs{Table: table, Options: options})
			if compiled.Problems != nil || digests[key] != netpol.SpecDigestOf(compiled.Spec()) {
				difference = key + " differs from what its policy compiles to"
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
	for !isSettled() {
		if time.Now().After(deadline) {
			require.FailNow(w.t, "the NetworkPolicies do not settle", difference)
		}
		time.Sleep(200 * time.Millisecond)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Empty(w.t, w.violations)
}

// Writes returns the agent's successful writes to the world's NetworkPolicies since a mark. It leaves out failed
// writes: while the agent's caches are outdated, the API server refuses writes with an old resourceVersion.
func (w *World) Writes(mark cluster.Mark) []string {
	w.t.Helper()
	var namespaces []string
	for i := range w.namespaces {
		namespaces = append(namespaces, w.Namespace(i))
	}
	return slices.DeleteFunc(NetworkPolicyWrites(w.t, mark, namespaces...), func(write string) bool { return strings.HasSuffix(write, cluster.Failed) })
}

// AwaitRest waits until the world is settled, and then requires that the agent writes nothing for quietTime. In the
// last call of a test quietTime is a minute, because the agent may wait as long before a retry. AwaitRest first adds a
// policy in the last namespace. Once the agent has applied this policy, it has processed all earlier changes.
func (w *World) AwaitRest(quietTime time.Duration) {
	w.t.Helper()
	w.background.Wait()
	w.markCount++
	last := (5000+w.markCount)*w.namespaces - 1
	w.Put(last, last+1, 0)
	isLast := func(policy networkingv1.NetworkPolicy) bool { return policy.Name == worldPolicyName(last) }
	require.Eventually(w.t, func() bool { return w.count(isLast) == 1 }, 2*time.Minute, 100*time.Millisecond, "the agent does not apply a new policy")
	w.AwaitSettled()
	mark, err := Control(w.t).Mark()
	require.NoError(w.t, err)
	time.Sleep(quietTime)
	w.AwaitSettled()
	require.Empty(w.t, w.Writes(mark), "the agent writes although nothing has changed")
}
