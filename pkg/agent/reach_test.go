package agent

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
)

// TestFairQueue: a namespace with many keys has one out at a time, and takes turns with the others.
func TestFairQueue(t *testing.T) {
	order := newFairQueue()
	queue := newQueue(prometheus.NewRegistry(), order)
	for i := range 100 {
		queue.Add(cache.NewObjectName("hostile", fmt.Sprint(i)))
	}
	queue.Add(cache.NewObjectName("a", "x"))
	first, _ := queue.Get()
	require.Equal(t, "hostile/0", first.String())
	queue.Add(cache.NewObjectName("b", "x"))
	second, _ := queue.Get()
	require.Equal(t, "a/x", second.String())
	third, _ := queue.Get()
	require.Equal(t, "b/x", third.String())
	require.Zero(t, order.Len(), "99 keys wait, and none may be taken")

	queue.Add(first) // while it is out
	queue.Done(first)
	order.release(first)
	queue.Add(cache.NewObjectName("c", "x"))
	for i := 1; i < 100; i++ {
		key, _ := queue.Get()
		if i == 2 {
			require.Equal(t, "c/x", key.String(), "turns")
			queue.Done(key)
			order.release(key)
			key, _ = queue.Get()
		}
		require.Equal(t, fmt.Sprint("hostile/", i), key.String())
		queue.Done(key)
		order.release(key)
	}
	again, _ := queue.Get()
	require.Equal(t, first, again)
	queue.Done(again)
	order.release(again)
	queue.Done(second)
	order.release(second)
	queue.Done(third)
	order.release(third)
	require.Empty(t, order.out)
	require.Empty(t, order.waiting)
}

// TestFairQueueWithWorkers: all that was added is worked on, by one worker of a namespace at a time.
func TestFairQueueWithWorkers(t *testing.T) {
	order := newFairQueue()
	queue := newQueue(prometheus.NewRegistry(), order)
	var mu sync.Mutex
	busy, done := make(map[string]bool), make(map[cache.ObjectName]int)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for {
				key, shutdown := queue.Get()
				if shutdown {
					return
				}
				mu.Lock()
				twice := busy[key.Namespace]
				busy[key.Namespace] = true
				mu.Unlock()
				if twice {
					t.Errorf("two workers in %s", key.Namespace)
				}
				time.Sleep(10 * time.Microsecond)
				mu.Lock()
				delete(busy, key.Namespace)
				done[key]++
				mu.Unlock()
				queue.Done(key)
				order.release(key)
			}
		})
	}
	for i := range 5000 {
		queue.Add(cache.NewObjectName(fmt.Sprint(i%20), fmt.Sprint(i)))
	}
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(done) == 5000
	}, time.Minute, time.Millisecond)
	queue.ShutDown()
	workers.Wait()
}

// TestExemptNamespaces: a policy in a namespace that the cluster or the agent rests on is not applied, and what the agent
// made there before goes.
func TestExemptNamespaces(t *testing.T) {
	for _, namespace := range []string{"kube-system", "kube-public", "kube-node-lease", "egress-system"} {
		t.Run(namespace, func(t *testing.T) {
			source := configMap(valid)
			source.Namespace = namespace
			made := writtenFor(t, valid)
			made.Namespace = namespace
			others := made.DeepCopy()
			others.OwnerReferences = nil
			key := cache.NewObjectName(namespace, "egress")

			f := newFixture(t, source)
			require.NoError(t, f.sync(t.Context(), key))
			reason, message := f.nextEvent()
			require.Equal(t, ReasonNamespaceExempt, reason)
			require.Contains(t, message, "The agent writes nothing in "+namespace)
			require.Empty(t, f.writes())
			require.NoError(t, f.sync(t.Context(), key))
			require.Empty(t, f.event(t), "told once")

			f = newFixture(t, source, made)
			require.NoError(t, f.sync(t.Context(), key))
			require.Equal(t, []string{"delete networkpolicies"}, f.writes())
			f = newFixture(t, source, others)
			require.NoError(t, f.sync(t.Context(), key))
			require.Empty(t, f.writes(), "somebody else made it")
		})
	}
}

// TestRemoveOnlyWhatItMade: the label alone makes no NetworkPolicy the agent's.
func TestRemoveOnlyWhatItMade(t *testing.T) {
	labelled := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant-a", Name: "egress", Labels: map[string]string{netpol.ManagedByLabel: netpol.ManagedBy}}}
	otherOwner := labelled.DeepCopy()
	otherOwner.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "another", UID: "x"}}
	otherKind := labelled.DeepCopy()
	otherKind.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "egress", UID: "x"}}
	for _, policy := range []*networkingv1.NetworkPolicy{labelled, otherOwner, otherKind} {
		f := newFixture(t, policy)
		require.NoError(t, f.sync(t.Context(), key))
		reason, message := f.nextEvent()
		require.Equal(t, ReasonNotMade, reason)
		require.Equal(t, "It has the label app.kubernetes.io/managed-by=egress-agent, but no ConfigMap for its owner: egress-agent leaves it as it is; take the label off, or delete it", message)
		require.Empty(t, f.verbs())
		require.NoError(t, f.sync(t.Context(), key))
		require.Empty(t, f.event(t), "told once")
	}
	f := newFixture(t, writtenFor(t, valid))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, []string{"delete networkpolicies"}, f.writes())
}

// TestYoungerOfOneName: of two ConfigMaps whose NetworkPolicies would have one name the older has it, and the younger hears
// of it. Once the older is gone, the younger has it.
func TestYoungerOfOneName(t *testing.T) {
	long := configMap(valid)
	long.Name, long.UID = strings.Repeat("x", 70), "long"
	long.CreationTimestamp = metav1.NewTime(time.Unix(2000, 0))
	short := configMap(edited)
	short.Name, short.UID = netpol.NetworkPolicyName(long.Name), "short"
	short.CreationTimestamp = metav1.NewTime(time.Unix(1000, 0))
	f := newFixture(t, long, short)
	key := policyKey(long)
	require.Equal(t, key, policyKey(short))
	require.NoError(t, f.sync(t.Context(), key))
	reason, message := f.nextEvent()
	require.Equal(t, ReasonNameConflict, reason)
	require.Equal(t, fmt.Sprintf("NetworkPolicy %s is that of ConfigMap %s, which is older, so this policy is not applied; give this ConfigMap another name", short.Name, short.Name), message)
	require.Equal(t, ReasonApplied, f.event(t))
	require.Equal(t, short.UID, inForce(t, f, short.Name).OwnerReferences[0].UID)
	f.observe(t)
	require.NoError(t, f.sync(t.Context(), key))
	require.Empty(t, f.event(t), "told once")
	require.NoError(t, f.configMaps.Delete(short))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, ReasonApplied, f.event(t))
	f.observe(t)
	short.CreationTimestamp = long.CreationTimestamp
	f.see(t, short)
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, ReasonNameConflict, f.event(t), "of the same second, and first by name, it comes too late")
	require.Equal(t, long.UID, inForce(t, f, short.Name).OwnerReferences[0].UID)
}

// TestStandbyKeepsNothing of what it sees but the caches; when it leads, it begins with all there is.
func TestStandbyKeepsNothing(t *testing.T) {
	orphan := writtenFor(t, valid)
	orphan.Name = "orphan"
	f := newFixture(t, configMap(valid), orphan)
	f.isLeader.Store(false)
	configMaps, policies := f.enqueuing(f.policyChanged, f.policyGone), f.enqueuing(f.networkPolicyChanged, f.networkPolicyGone)
	for i := range 1000 {
		source := configMap(valid)
		source.Name = fmt.Sprint(i)
		configMaps.OnAdd(source, false)
		policies.OnUpdate(nil, writtenFor(t, valid))
		configMaps.OnDelete(source)
	}
	require.Zero(t, f.queue.Len())
	require.Empty(t, f.changedAt)
	require.Empty(t, f.remembered)
	f.isLeader.Store(true)
	f.enqueueAll()
	require.Equal(t, []string{"tenant-a/egress", "tenant-a/orphan"}, f.queued(2))
}

// TestServiceGone: what a service opened that the ranges no longer have is closed, also though the policy, which names it,
// is not valid any more. Without AWS's document nobody knows that it is gone.
func TestServiceGone(t *testing.T) {
	const ours = `{"allowedDestinations": [{"name": "ours", "awsService": "our_own", "ports": [443]}, {"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`
	custom, err := awsranges.Parse([]byte(`{"prefixes": [{"ip_prefix": "10.7.0.0/16", "region": "here", "service": "OUR_OWN"}]}`))
	require.NoError(t, err)
	f := newFixture(t, configMap(ours))
	f.table.Store(awsranges.Merge(testTable(t), custom))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, ReasonApplied, f.event(t))
	require.Equal(t, 2, netpol.CIDRCount(inForce(t, f, "egress").Spec))
	f.observe(t)

	f.table.Store(nil)
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, ReasonInvalid, f.event(t))
	require.Empty(t, f.writes())

	f.table.Store(testTable(t))
	require.NoError(t, f.sync(t.Context(), key))
	reason, message := f.nextEvent()
	require.Equal(t, ReasonServiceGone, reason)
	require.Equal(t, `The ranges no longer have ["our_own"], so what they opened is closed; remove them from the policy, or name their successors`, message)
	require.Equal(t, 1, netpol.CIDRCount(inForce(t, f, "egress").Spec))
	f.observe(t)
	require.NoError(t, f.sync(t.Context(), key))
	require.Empty(t, f.event(t), "told once")
	require.Empty(t, f.writes())

	f.table.Store(awsranges.Merge(testTable(t), custom))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, ReasonRangesChanged, f.event(t), "it is back")
	require.Equal(t, 2, netpol.CIDRCount(inForce(t, f, "egress").Spec))

	edited := configMap(strings.Replace(ours, "5432", "5433", 1))
	f.observe(t)
	f.table.Store(testTable(t))
	f.see(t, edited)
	require.NoError(t, f.sync(t.Context(), key))
	reason, message = f.nextEvent()
	require.Equal(t, ReasonInvalid, reason, "an edit that names it is a mistake")
	require.Contains(t, message, "Invalid service: our_own")
}
