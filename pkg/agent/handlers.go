package agent

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// From events of the caches to keys of the queue, and from a key to what the caches have of it.

// watchPolicies makes the caches, with handlers that only put keys on the queue.
func (a *Agent) watchPolicies() {
	core, networking := a.client.CoreV1(), a.client.NetworkingV1()
	var configMapInformer, policyInformer cache.Controller
	a.configMaps, configMapInformer = newInformer(core.RESTClient(), "configmaps", core.ConfigMaps(metav1.NamespaceAll), policy.Label+"="+policy.LabelValue,
		a.slim, a.enqueuing(a.policyChanged, a.policyGone), cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc, byPolicyKey: indexPolicyKey})
	a.networkPolicies, policyInformer = newInformer(networking.RESTClient(), "networkpolicies", networking.NetworkPolicies(metav1.NamespaceAll), "",
		a.observe, a.enqueuing(a.networkPolicyChanged, a.networkPolicyGone), cache.Indexers{})
	a.informers = []cache.Controller{configMapInformer, policyInformer}
}

func indexPolicyKey(object any) ([]string, error) {
	configMap, err := meta.Accessor(object)
	if err != nil {
		return nil, err
	}
	if key := policyKey(configMap); key.Name != configMap.GetName() {
		return []string{key.String()}, nil
	}
	return nil, nil
}

// networkPolicyChanged passes over what the agent has written itself, and is there as it was written.
func (a *Agent) networkPolicyChanged(policy metav1.Object) (key cache.ObjectName, due bool) {
	key = cache.MetaObjectToName(policy)
	a.enqueueUnfit(key.Namespace, key.Name)
	return key, a.get(key).writtenVersion != policy.GetResourceVersion()
}

// policyChanged notes when a policy was seen to change.
func (a *Agent) policyChanged(configMap metav1.Object) (key cache.ObjectName, due bool) {
	key = policyKey(configMap)
	a.enqueueUnfit(key.Namespace, key.Name)
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, waiting := a.changedAt[key]; !waiting {
		a.changedAt[key] = time.Now()
	}
	return key, true
}

// policyKey is the key of a ConfigMap's NetworkPolicy.
func policyKey(configMap metav1.Object) cache.ObjectName {
	return cache.NewObjectName(configMap.GetNamespace(), netpol.NetworkPolicyName(configMap.GetName()))
}

func (a *Agent) policyGone(configMap metav1.Object) {
	a.ledger.dropDocument(configMap.GetNamespace(), configMap.GetName(), configMap.GetUID())
}

func (a *Agent) networkPolicyGone(policy metav1.Object) {
	a.ledger.dropUsage(policy.GetNamespace(), policy.GetName())
}

// enqueueUnfit enqueues the policies of a namespace, but for one, that were too much beside its others: something has
// changed, and they may fit now. Of many it enqueues a hundred a second, since each takes a compilation.
func (a *Agent) enqueueUnfit(namespace, but string) {
	for i, name := range a.ledger.unfitOf(namespace, but) {
		a.queue.AddAfter(cache.NewObjectName(namespace, name), time.Duration(i)*10*time.Millisecond)
	}
}

// enqueuing handles events by a function that gives the key of what they are about, and whether a look at it
// is due. After a deletion one always is: an informer that missed it gives the last version it has seen. A standby enqueues
// nothing: when it leads, it begins with all there is.
func (a *Agent) enqueuing(about func(metav1.Object) (key cache.ObjectName, due bool), gone func(metav1.Object)) cache.ResourceEventHandler {
	enqueue := func(object any, deleted bool) {
		if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = tombstone.Obj
		}
		accessor, err := meta.Accessor(object)
		if err != nil {
			return
		}
		if deleted {
			gone(accessor)
		}
		if !a.isLeader.Load() {
			return
		}
		if key, due := about(accessor); due || deleted {
			a.queue.Add(key)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { enqueue(object, false) },
		UpdateFunc: func(_, object any) { enqueue(object, false) },
		DeleteFunc: func(object any) { enqueue(object, true) },
	}
}

// enqueueAll enqueues every policy, the older first, and every NetworkPolicy that the agent made, whose policy may be gone.
func (a *Agent) enqueueAll() {
	configMaps := a.configMaps.List()
	created := func(object any) time.Time { return object.(metav1.Object).GetCreationTimestamp().Time }
	slices.SortStableFunc(configMaps, func(x, y any) int { return created(x).Compare(created(y)) })
	for _, object := range configMaps {
		a.queue.Add(policyKey(object.(metav1.Object)))
	}
	for _, object := range a.networkPolicies.List() {
		if o, ok := object.(*networkPolicyMeta); ok && netpol.HasManagedLabel(&o.ObjectMeta) {
			a.queue.Add(cache.MetaObjectToName(o))
		}
	}
}

// configMapOf returns the ConfigMap that the NetworkPolicy of this key is made from; nil for none. Of several whose
// NetworkPolicies would have one name the oldest has it, and of those of one second the one that has it now; the others
// are younger. current is the NetworkPolicy, nil for none.
func (a *Agent) configMapOf(key cache.ObjectName, current *networkPolicyMeta) (oldest *corev1.ConfigMap, younger []*corev1.ConfigMap, err error) {
	objects, err := a.configMaps.ByIndex(byPolicyKey, key.String())
	if err != nil {
		return nil, nil, err
	}
	object, exists, err := a.configMaps.GetByKey(key.String())
	if err != nil {
		return nil, nil, err
	}
	if exists {
		objects = append(objects, object)
	}
	var found []*corev1.ConfigMap
	for _, object := range objects {
		configMap, ok := object.(*corev1.ConfigMap)
		if !ok {
			return nil, nil, fmt.Errorf("the cache of ConfigMaps holds a %T", object)
		}
		found = append(found, configMap)
	}
	if len(found) == 0 {
		return nil, nil, nil
	}
	hasIt := func(configMap *corev1.ConfigMap) int {
		if current != nil && slices.ContainsFunc(current.OwnerReferences, func(owner metav1.OwnerReference) bool { return owner.UID == configMap.UID }) {
			return 0
		}
		return 1
	}
	slices.SortFunc(found, func(a, b *corev1.ConfigMap) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(hasIt(a), hasIt(b)), strings.Compare(a.Name, b.Name))
	})
	return found[0], found[1:], nil
}
