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
// After a change of the ranges, options or guardrails, the Event of the first write reports the whole change. The second write only
// completes the change and has no Event.
func Transition(d Decision, cause netpol.Cause, current *networkingv1.NetworkPolicy, options Options) Decision {
	if isPolicyUnchanged(cause) && d.Warning != ReasonServiceGone {
		added, removed := countCIDRs(current.Spec, d.Desired.Spec)
		switch {
		case cause == netpol.CauseExpiry: // the Warning Expired reports the change
		case cause == netpol.CauseOptions:
			d.Reason, d.Message = ReasonApplied, "The options of the agent changed; "+d.Message
		case cause == netpol.CauseGuardrails:
			if d.Warning == "" { // otherwise the Warning says what the guardrails close
				d.Reason, d.Message = ReasonApplied, "The guardrails of the platform changed; "+d.Message
			}
		case added+removed > 0:
			d.Reason = ReasonRangesChanged
			subject := "ranges"
			if d.Warning == ReasonGuarded {
				subject = "ranges or the guardrails"
			}
			d.Message = fmt.Sprintf("The "+subject+" changed, CIDRs added: %d, removed: %d; %s", added, removed, d.Message)
		}
	}
	step, spec := netpol.Transition(current.Spec, d.Desired.Spec, options.ChunkPeers, options.Compile)
	d.Step = step
	if cause == netpol.CauseExpiry && step == netpol.Narrow {
		d.Step = netpol.Replace // a destination closes when it expires, without a wait
	}
	switch {
	case step == netpol.Widen:
		widened := current.DeepCopy()
		widened.Spec = spec
		netpol.SetSpecAnnotations(widened, current.Generation+1)
		d.Desired = widened
		if !isPolicyUnchanged(cause) {
			d.Reason = ""
		}
	case step == netpol.Narrow && isPolicyUnchanged(cause):
		d.Reason = ""
	}
	return d
}

// countCIDRs counts the CIDRs that only desired has (added), and the CIDRs that only current has (removed).
func countCIDRs(current, desired networkingv1.NetworkPolicySpec) (added, removed int) {
	currentCIDRs, desiredCIDRs := cidrsOf(current), cidrsOf(desired)
	return desiredCIDRs.Difference(currentCIDRs).Len(), currentCIDRs.Difference(desiredCIDRs).Len()
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
