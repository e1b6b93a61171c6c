package traffic

import (
	"net/netip"
	"slices"

	"egress-agent/pkg/analysis/flows"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// Destinations are the destinations of a policy, with an index of their prefixes.
type Destinations struct {
	namespace string
	cluster   *flows.Cluster
	list      []policy.Destination
	byPrefix  map[netip.Prefix][]int
	bits      [2][]int // the lengths of IPv4 and IPv6 prefixes in byPrefix
	pods      []int
}

// NewDestinations returns the destinations of a policy. A service whose ranges are not loaded allows no flow, and the API
// server neither. namespace is the policy's namespace.
func NewDestinations(list []policy.Destination, table *awsranges.Table, namespace string, cluster *flows.Cluster) *Destinations {
	found := &Destinations{namespace: namespace, cluster: cluster, list: list, byPrefix: make(map[netip.Prefix][]int)}
	for i, d := range list {
		if d.Pods != nil {
			found.pods = append(found.pods, i)
		}
		resolved, _ := netpol.Resolve(d, table)
		for _, prefix := range resolved {
			found.byPrefix[prefix] = append(found.byPrefix[prefix], i)
			if family := familyOf(prefix.Addr()); !slices.Contains(found.bits[family], prefix.Bits()) {
				found.bits[family] = append(found.bits[family], prefix.Bits())
			}
		}
	}
	return found
}

// Allow reports whether a destination allows a flow. It calls each with the index of every such destination; each may be
// nil.
func (d *Destinations) Allow(flow flows.Flow, each func(index int)) bool {
	isAllowed := false
	allow := func(i int, port uint16) {
		if hasPort(d.list[i], flow, port) {
			isAllowed = true
			if each != nil {
				each(i)
			}
		}
	}
	for _, length := range d.bits[familyOf(flow.Destination)] {
		for _, i := range d.byPrefix[netip.PrefixFrom(flow.Destination, length).Masked()] {
			allow(i, flow.Port)
		}
	}
	for _, i := range d.pods {
		if leadsTo(*d.list[i].Pods, d.namespace, d.cluster, flow) {
			allow(i, d.cluster.PortOf(flow))
		}
	}
	return isAllowed
}

// Usage returns how many distinct flows each destination allows, in the policy's order. It leaves out flows that the
// dataplane always denied.
func (d *Destinations) Usage(all []flows.Flow) []int {
	counts := make([]int, len(d.list))
	for _, flow := range all {
		if flow.Accepted > 0 {
			d.Allow(flow, func(i int) { counts[i]++ })
		}
	}
	return counts
}

func hasPort(d policy.Destination, flow flows.Flow, port uint16) bool {
	return d.Ports == nil || slices.ContainsFunc(d.Ports, func(opened policy.Port) bool {
		return opened.Protocol == flow.Protocol && opened.First <= port && port <= opened.Last
	})
}

// leadsTo reports whether a flow leads to pods, or to a Service that selects them. own is the namespace of the policy.
func leadsTo(pods policy.Pods, own string, cluster *flows.Cluster, flow flows.Flow) bool {
	namespace, labels := "", map[string]string(nil)
	if pod, ok := cluster.PodOf(flow.Destination); ok {
		namespace, labels = pod.Namespace, pod.Labels
	} else if service, ok := cluster.ServiceOf(flow.Destination); ok && len(service.Selector) > 0 {
		namespace, labels = service.Namespace, service.Selector
	} else {
		return false
	}
	wanted := pods.Namespace
	if wanted == "" {
		wanted = own
	}
	for key, value := range pods.Labels {
		if labels[key] != value {
			return false
		}
	}
	return namespace == wanted
}
