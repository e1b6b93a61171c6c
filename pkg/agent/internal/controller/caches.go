package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/agent/internal/apiserver"
	"egress-agent/pkg/agent/internal/cached"
	"egress-agent/pkg/agent/internal/ledger"
	"egress-agent/pkg/internal/slimlist"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

// caches hold the policy ConfigMaps and all NetworkPolicies, in reduced form. They count these objects in the ledger.
// Their other informers only call the handlers.
type caches struct {
	configMaps      cache.Indexer // of *cached.ConfigMap
	networkPolicies cache.Indexer // of *cached.NetworkPolicy
	informers       []cache.Controller
	ledger          *ledger.Ledger
	synced          chan struct{} // closed when the informers have listed all objects
}

// byPolicyKey is the index of ConfigMaps by NetworkPolicy key. It has only the ConfigMaps whose NetworkPolicy has
// another name than the ConfigMap.
const byPolicyKey = "policyKey"

// handlers are the handlers of the informers.
type handlers struct{ configMaps, networkPolicies, platforms, namespaces, service, endpoints cache.ResourceEventHandler }

// newCaches returns empty caches, whose informers call the handlers. Platform ConfigMaps are in agentNamespace. If
// hasNamespaces is true, the NetworkPolicies have an index by namespace.
func newCaches(
	client kubernetes.Interface, metadataClient metadata.Interface, agentNamespace string, ledger *ledger.Ledger, hasNamespaces bool, handlers handlers,
) *caches {
	c := &caches{ledger: ledger, synced: make(chan struct{})}
	core, networking := client.CoreV1(), client.NetworkingV1()
	var configMaps, networkPolicies cache.Controller
	indexers := cache.Indexers{}
	if hasNamespaces {
		indexers[cache.NamespaceIndex] = cache.MetaNamespaceIndexFunc
	}
	c.configMaps, configMaps = slimlist.NewInformer(slimlist.Resource{
		Name: "configmaps", Selector: policy.Label + "=" + policy.LabelValue,
		Client: core.RESTClient(), Watcher: core.ConfigMaps(metav1.NamespaceAll),
	}, c.reduceConfigMap, handlers.configMaps, cache.Indexers{byPolicyKey: indexPolicyKey})
	c.networkPolicies, networkPolicies = slimlist.NewInformer(slimlist.Resource{
		Name: "networkpolicies", Accept: slimlist.MetadataList, Client: networking.RESTClient(),
		Watcher: metadataClient.Resource(networkingv1.SchemeGroupVersion.WithResource("networkpolicies")),
	}, c.reduceNetworkPolicy, handlers.networkPolicies, indexers)
	_, platforms := slimlist.NewInformer(slimlist.Resource{
		Name: "configmaps", Namespace: agentNamespace, Selector: policy.Label + "=" + platform.LabelValue,
		Client: core.RESTClient(), Watcher: core.ConfigMaps(agentNamespace),
	}, reducePlatform, handlers.platforms, cache.Indexers{})
	_, namespaces := slimlist.NewInformer(slimlist.Resource{
		Name: "namespaces", Accept: slimlist.MetadataList, Client: core.RESTClient(),
		Watcher: metadataClient.Resource(corev1.SchemeGroupVersion.WithResource("namespaces")),
	}, cached.NamespaceOf, handlers.namespaces, cache.Indexers{})
	_, service := slimlist.NewInformer(slimlist.Resource{
		Name: "services", Namespace: apiserver.Namespace, Object: apiserver.Name,
		Client: core.RESTClient(), Watcher: core.Services(apiserver.Namespace),
	}, func(full *corev1.Service) *corev1.Service { return full }, handlers.service, cache.Indexers{})
	_, endpoints := slimlist.NewInformer(slimlist.Resource{
		Name: "endpointslices", Namespace: apiserver.Namespace, Object: apiserver.Name,
		Client: client.DiscoveryV1().RESTClient(), Watcher: client.DiscoveryV1().EndpointSlices(apiserver.Namespace),
	}, func(full *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice { return full }, handlers.endpoints, cache.Indexers{})
	c.informers = []cache.Controller{configMaps, networkPolicies, platforms, namespaces, service, endpoints}
	return c
}

// reducePlatform returns a platform ConfigMap with only its document.
func reducePlatform(full *corev1.ConfigMap) *corev1.ConfigMap {
	reduced := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: full.Namespace, Name: full.Name, UID: full.UID, ResourceVersion: full.ResourceVersion,
	}}
	if document, ok := full.Data[platform.Key]; ok {
		reduced.Data = map[string]string{platform.Key: document}
	}
	return reduced
}

// run runs the informers until ctx ends.
func (c *caches) run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	var syncedCheckers []cache.DoneChecker
	for _, informer := range c.informers {
		running.Go(func() { informer.RunWithContext(ctx) })
		syncedCheckers = append(syncedCheckers, informer.HasSyncedChecker())
	}
	if cache.WaitFor(ctx, "", syncedCheckers...) {
		close(c.synced)
	}
}

// reduceConfigMap returns the reduced form, and counts the policy document in the ledger.
func (c *caches) reduceConfigMap(full *corev1.ConfigMap) *cached.ConfigMap {
	return cached.ConfigMapOf(full, c.ledger.AddDocument)
}

// reduceNetworkPolicy returns the reduced form, and counts the usage of a NetworkPolicy that the agent made.
func (c *caches) reduceNetworkPolicy(metadata *metav1.PartialObjectMetadata) *cached.NetworkPolicy {
	if netpol.IsMade(&metadata.ObjectMeta) {
		usage, ok := netpol.ParseUsage(metadata.Annotations[netpol.UsageAnnotation])
		if !ok {
			usage.Many = true // then the ledger assumes any number of ports, and a sync reads the spec
		}
		c.ledger.SetUsage(metadata.Namespace, metadata.Name, usage)
	} else {
		c.ledger.DropUsage(metadata.Namespace, metadata.Name)
	}
	return cached.NetworkPolicyOf(metadata)
}

// policyKey returns the key of a ConfigMap's NetworkPolicy.
func policyKey(configMap metav1.Object) cache.ObjectName {
	return cache.NewObjectName(configMap.GetNamespace(), netpol.NetworkPolicyName(configMap.GetName()))
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

// configMapCount returns how many policy ConfigMaps there are.
func (c *caches) configMapCount() int { return len(c.configMaps.ListKeys()) }

// policyKeys returns the key of each policy's NetworkPolicy, the oldest policy first.
func (c *caches) policyKeys() []cache.ObjectName {
	var configMaps []metav1.Object
	for _, object := range c.configMaps.List() {
		if reduced, ok := object.(*cached.ConfigMap); ok {
			configMaps = append(configMaps, reduced.GetObjectMeta())
		}
	}
	slices.SortStableFunc(configMaps, func(x, y metav1.Object) int {
		return x.GetCreationTimestamp().Compare(y.GetCreationTimestamp().Time)
	})
	keys := make([]cache.ObjectName, len(configMaps))
	for i, configMap := range configMaps {
		keys[i] = policyKey(configMap)
	}
	return keys
}

// managedKeys returns the keys of the NetworkPolicies with the agent's label.
func (c *caches) managedKeys() []cache.ObjectName {
	var keys []cache.ObjectName
	for _, object := range c.networkPolicies.List() {
		if current, ok := object.(*cached.NetworkPolicy); ok && current.IsManaged() {
			keys = append(keys, cache.MetaObjectToName(current.GetObjectMeta()))
		}
	}
	return keys
}

// networkPolicy returns the NetworkPolicy of this key; nil if the cache has no such NetworkPolicy. isSpecKnown is false
// if someone may have edited the spec since the agent wrote it.
func (c *caches) networkPolicy(key cache.ObjectName) (current *netpol.Current, isSpecKnown bool, err error) {
	object, exists, err := c.networkPolicies.GetByKey(key.String())
	if err != nil || !exists {
		return nil, false, err
	}
	reduced, ok := object.(*cached.NetworkPolicy)
	if !ok {
		return nil, false, fmt.Errorf("the cache of NetworkPolicies holds a %T", object)
	}
	current, isSpecKnown = reduced.Current()
	return current, isSpecKnown, nil
}

// configMapOf returns the ConfigMap of the NetworkPolicy with this key; nil if there is no such ConfigMap. Several
// ConfigMaps may claim the same NetworkPolicy. The oldest ConfigMap gets it, and configMapOf returns the other
// ConfigMaps as younger. If several were created in the same second, the owner of the current NetworkPolicy gets it. If
// no ConfigMap owns it, the first by name gets it. current may be nil.
func (c *caches) configMapOf(
	key cache.ObjectName, current *netpol.Current,
) (oldest *cached.ConfigMap, younger []*corev1.ConfigMap, err error) {
	objects, err := c.configMaps.ByIndex(byPolicyKey, key.String())
	if err != nil {
		return nil, nil, err
	}
	object, exists, err := c.configMaps.GetByKey(key.String())
	if err != nil {
		return nil, nil, err
	}
	if exists {
		objects = append(objects, object)
	}
	var claimants []*cached.ConfigMap
	for _, object := range objects {
		configMap, ok := object.(*cached.ConfigMap)
		if !ok {
			return nil, nil, fmt.Errorf("the cache of ConfigMaps holds a %T", object)
		}
		claimants = append(claimants, configMap)
	}
	if len(claimants) == 0 {
		return nil, nil, nil
	}
	ownerRank := func(configMap metav1.Object) int { // an owner of current sorts before other ConfigMaps
		owns := func(owner metav1.OwnerReference) bool { return owner.UID == configMap.GetUID() }
		if current != nil && slices.ContainsFunc(current.OwnerReferences, owns) {
			return 0
		}
		return 1
	}
	slices.SortFunc(claimants, func(first, second *cached.ConfigMap) int {
		x, y := first.GetObjectMeta(), second.GetObjectMeta()
		return cmp.Or(x.GetCreationTimestamp().Compare(y.GetCreationTimestamp().Time),
			cmp.Compare(ownerRank(x), ownerRank(y)), strings.Compare(x.GetName(), y.GetName()))
	})
	for _, claimant := range claimants[1:] {
		younger = append(younger, claimant.ConfigMap())
	}
	return claimants[0], younger, nil
}
