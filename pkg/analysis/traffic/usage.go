package traffic

import (
	"net/netip"
	"slices"

	"egress-agent/pkg/analysis/flows"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// Usage returns how many distinct flows each destination of a policy allows, in the policy's order. It leaves out flows
// that the dataplane always denied. A service whose ranges are not loaded has no flows. namespace is the policy's
// namespace.
func Usage(p *policy.Policy, table *awsranges.Table, namespace string, cluster *flows.Cluster, all []flows.Flow) []int {
	counts := make([]int, len(p.Destinations))
	byPrefix := make(map[netip.Prefix][]int)
	var bits [2][]int
	var pods []int
	for i, d := range p.Destinations {
		if d.Pods != nil {
			pods = append(pods, i)
		}
		found, _ := netpol.Resolve(d, table)
		for _, prefix := range found {
			byPrefix[prefix] = append(byPrefix[prefix], i)
			if family := familyOf(prefix.Addr()); !slices.Contains(bits[family], prefix.Bits()) {
				bits[family] = append(bits[family], prefix.Bits())
			}
		}
	}
	for _, flow := range all {
		if flow.Accepted == 0 {
			continue
		}
		for _, length := range bits[familyOf(flow.Destination)] {
			for _, i := range byPrefix[netip.PrefixFrom(flow.Destination, length).Masked()] {
				if hasPort(p.Destinations[i], flow, flow.Port) {
					counts[i]++
				}
			}
		}
		for _, i := range pods {
			if leadsTo(*p.Destinations[i].Pods, namespace, cluster, flow) && hasPort(p.Destinations[i], flow, cluster.PortOf(flow)) {
				counts[i]++
			}
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
