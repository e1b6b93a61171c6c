package traffic

import (
	"slices"

	"egress-agent/pkg/analysis/flows"
)

// Denied are the flows to one destination that NetworkPolicies deny.
type Denied struct {
	// First is one of the flows. All have its Destination, Port and Protocol.
	First   flows.Flow
	Sources int   // distinct addresses
	Records int64 // of the logs
}

// DeniedOf returns the flows for which isDenied returns true, by destination. It skips flows that the dataplane always
// denied. all must be sorted by destination, port and protocol. The destination with the most sources comes first.
func DeniedOf(all []flows.Flow, isDenied func(flows.Flow) bool) []Denied {
	var found []Denied
	for _, flow := range all {
		if flow.Accepted == 0 || !isDenied(flow) {
			continue
		}
		if n := len(found); n > 0 && isSameTarget(found[n-1].First, flow) {
			found[n-1].Sources++
			found[n-1].Records += flow.Accepted
			continue
		}
		found = append(found, Denied{flow, 1, flow.Accepted})
	}
	slices.SortStableFunc(found, func(a, b Denied) int { return b.Sources - a.Sources })
	return found
}

func isSameTarget(a, b flows.Flow) bool {
	return a.Destination == b.Destination && a.Port == b.Port && a.Protocol == b.Protocol
}
