package status

import (
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/analysis/flows"
	"egress-agent/pkg/analysis/traffic"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// Traffic compares the policies of a namespace with the flows of its pods.
type Traffic struct {
	Namespace string `json:"namespace"`
	// Flows is the number of distinct flows.
	Flows int `json:"flows"`
	// Denied are the flows that would be denied if each policy had the defaultAction deny, by destination. The
	// destination with the most sources comes first. Denied is never nil.
	Denied []DeniedFlows `json:"denied"`
	// Unused are the destinations that allow no flow, as POLICY/DESTINATION, in the order of the report. Unused is never
	// nil.
	Unused []string `json:"unused"`
}

// DeniedFlows are the flows to one destination.
type DeniedFlows struct {
	Destination string `json:"destination"` // ADDRESS:PORT/PROTOCOL
	Sources     int    `json:"sources"`     // distinct addresses
	Records     int64  `json:"records"`
}

// AddTraffic sets r.Traffic, and Flows of each destination. cluster must be the cluster of the report. known has the pods
// of the cluster; if it knows none, all flows are those of the report's only namespace. all must be sorted by
// destination, port and protocol.
func (r *Report) AddTraffic(cluster Cluster, all []flows.Flow, known *flows.Cluster) {
	inForce := make(map[string][]*networkingv1.NetworkPolicy)
	for _, networkPolicy := range cluster.NetworkPolicies {
		inForce[networkPolicy.Namespace] = append(inForce[networkPolicy.Namespace], networkPolicy)
	}
	own := make(map[string][]flows.Flow)
	for _, flow := range all {
		namespace := known.NamespaceOf(flow.Source)
		own[namespace] = append(own[namespace], flow)
	}
	r.Traffic = []Traffic{}
	for start := 0; start < len(r.Policies); {
		end := start + 1
		for end < len(r.Policies) && r.Policies[end].Namespace == r.Policies[start].Namespace {
			end++
		}
		namespace := r.Policies[start].Namespace
		found := own[namespace]
		if known.IsEmpty() {
			found = all
		}
		r.Traffic = append(r.Traffic, cluster.traffic(r.Policies[start:end], inForce[namespace], found, known))
		start = end
	}
	slices.SortStableFunc(r.Traffic, func(a, b Traffic) int { return len(b.Denied) - len(a.Denied) })
}

// traffic compares the policies of one namespace with its flows, and sets Flows of their destinations. inForce are the
// NetworkPolicies of the namespace.
func (c Cluster) traffic(policies []Policy, inForce []*networkingv1.NetworkPolicy, own []flows.Flow, known *flows.Cluster) Traffic {
	t := Traffic{Namespace: policies[0].Namespace, Flows: len(own), Denied: []DeniedFlows{}, Unused: []string{}}
	byName := make(map[string]*traffic.Destinations) // by the name of the NetworkPolicy
	for i := range policies {
		p := &policies[i]
		var list []policy.Destination
		for _, d := range p.Destinations {
			list = append(list, d.Source)
		}
		destinations := traffic.NewDestinations(list, c.Table, t.Namespace, known)
		if p.DefaultAction == policy.Allow {
			byName[p.NetworkPolicy] = destinations
		}
		for k, count := range destinations.Usage(own) {
			d := &p.Destinations[k]
			if d.Source.Entity != "" || d.Source.Domain != "" || d.IsExpired {
				continue // a log shows neither the API server's addresses nor names, and an expired destination opens nothing
			}
			d.Flows = &count
			if count == 0 {
				t.Unused = append(t.Unused, p.Name+"/"+d.Name)
			}
		}
	}
	judge := c.newJudge(t.Namespace, byName, inForce, known)
	for _, d := range traffic.DeniedOf(own, func(flow flows.Flow) bool { return !judge.allows(flow) }) {
		t.Denied = append(t.Denied, DeniedFlows{d.First.Target(), d.Sources, d.Records})
	}
	return t
}

// judge tells what a namespace would allow if none of its policies had the defaultAction allow.
type judge struct {
	// now has the NetworkPolicies as they are, so without what guardrails close.
	now *traffic.Namespace
	// denying has the same NetworkPolicies. Those of policies with defaultAction allow deny everything.
	denying *traffic.Namespace
	// observing are the policies with defaultAction allow, each alone.
	observing []observing
}

type observing struct {
	pods         *traffic.Namespace // with a NetworkPolicy that denies everything, so it allows the flows of other pods
	destinations *traffic.Destinations
}

// newJudge returns a judge. byName has the destinations of policies with defaultAction allow, by the name of the
// NetworkPolicy.
func (c Cluster) newJudge(namespace string, byName map[string]*traffic.Destinations, inForce []*networkingv1.NetworkPolicy, known *flows.Cluster) *judge {
	j := &judge{}
	var now, denying []networkingv1.NetworkPolicySpec
	for _, networkPolicy := range inForce {
		now = append(now, networkPolicy.Spec)
		destinations, isObserving := byName[networkPolicy.Name]
		if !isObserving {
			denying = append(denying, networkPolicy.Spec)
			continue
		}
		spec := netpol.DenyAll(c.Options)
		spec.PodSelector = networkPolicy.Spec.PodSelector
		denying = append(denying, spec)
		j.observing = append(j.observing, observing{traffic.NewNamespace(namespace, []networkingv1.NetworkPolicySpec{spec}, known), destinations})
	}
	j.now, j.denying = traffic.NewNamespace(namespace, now, known), traffic.NewNamespace(namespace, denying, known)
	return j
}

func (j *judge) allows(flow flows.Flow) bool {
	return j.now.Allows(flow) && (j.denying.Allows(flow) || slices.ContainsFunc(j.observing, func(o observing) bool {
		return !o.pods.Allows(flow) && o.destinations.Allow(flow, nil)
	}))
}
