package plan

import (
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"egress-agent/pkg/netpol"
)

// Transition completes a decision that needs the spec of the current NetworkPolicy. A large change takes two writes:
// the first widens, the second narrows. Until the second, the NetworkPolicy has the digest of the previous policy
// document.
//
// The first write sees the whole change of the ranges or options, so its Event reports that. The second write only
// completes the change and reports nothing.
func Transition(d Decision, cause netpol.Cause, current *networkingv1.NetworkPolicy, options Options) Decision {
	if isSamePolicy(cause) && d.Warning != ReasonServiceGone {
		added, removed := countCIDRs(current.Spec, d.Desired.Spec)
		switch {
		case cause == netpol.CauseOptions:
			d.Reason, d.Message = ReasonApplied, "The options of the agent changed; "+d.Message
		case added+removed > 0:
			d.Reason = ReasonRangesChanged
			d.Message = fmt.Sprintf("The ranges changed, CIDRs added: %d, removed: %d; %s", added, removed, d.Message)
		}
	}
	step, spec := netpol.Transition(current.Spec, d.Desired.Spec, options.ChunkPeers, options.Compile)
	d.Step = step
	switch {
	case step == netpol.Widen:
		wide := current.DeepCopy()
		wide.Spec = spec
		netpol.SetSpecAnnotations(wide, current.Generation+1)
		d.Desired = wide
		if !isSamePolicy(cause) {
			d.Reason = ""
		}
	case step == netpol.Narrow && isSamePolicy(cause):
		d.Reason = ""
	}
	return d
}

// countCIDRs returns how many CIDRs only desired has (added), and how many only current has (removed).
func countCIDRs(current, desired networkingv1.NetworkPolicySpec) (added, removed int) {
	before, after := cidrsOf(current), cidrsOf(desired)
	return after.Difference(before).Len(), before.Difference(after).Len()
}

func cidrsOf(spec networkingv1.NetworkPolicySpec) sets.Set[string] {
	cidrs := sets.New[string]()
	for _, rule := range spec.Egress {
		for _, peer := range rule.To {
			if peer.IPBlock != nil {
				cidrs.Insert(peer.IPBlock.CIDR)
			}
		}
	}
	return cidrs
}
