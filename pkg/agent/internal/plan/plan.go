// Package plan turns the assessment of a policy into a write and Events. It is pure: no clock, log, context or client.
package plan

import (
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// AgentName is the agent's name in messages and towards the API server.
const AgentName = netpol.ManagedBy

// The reasons of Events on a policy ConfigMap. A Warning has the policy's netpol.State as its reason, or
// ReasonServiceGone, or one of the last two.
const (
	ReasonApplied           = "Applied"
	ReasonRestored          = "Restored"
	ReasonInvalid           = string(netpol.Invalid)
	ReasonNameConflict      = string(netpol.NameConflict)
	ReasonRangesChanged     = "RangesChanged"
	ReasonRangesUnavailable = string(netpol.RangesUnavailable)
	ReasonServiceGone       = "ServiceGone"
	ReasonNamespaceExempt   = string(netpol.NamespaceExempt)
	ReasonGuarded           = string(netpol.Guarded)
	ReasonExpiring          = "Expiring"
	ReasonExpired           = "Expired"
)

// ReasonNotMade is the reason of the Event on a NetworkPolicy that has the agent's label but comes from no ConfigMap.
const ReasonNotMade = "NotMade"

// Options control every decision.
type Options struct {
	Compile netpol.Options
	// ChunkPeers is the largest number of CIDRs that a single write changes.
	ChunkPeers int
}

// Decision is the action of a sync: at most one write, and the Events.
type Decision struct {
	// Desired is the NetworkPolicy to write: an update if the NetworkPolicy exists, otherwise a creation. If Desired is
	// nil, the sync writes nothing.
	Desired *networkingv1.NetworkPolicy
	// NeedsSpec is true if Transition must complete the decision with the spec of the current NetworkPolicy.
	NeedsSpec bool
	// Step is the part of the change that writing Desired makes. netpol.Narrow must wait until the dataplane has
	// applied netpol.Widen.
	Step netpol.Step
	// Reason and Message are the Event about the write. If Reason is empty, there is no such Event.
	Reason, Message string
	// Warning and Problem are the reason and the message of the Warning about the policy. If Warning is empty, there is
	// no such Event.
	Warning, Problem string
}

// Decide returns the decision for an assessment. current is nil if there is no NetworkPolicy. wasInPlace
// reports whether this process has seen a NetworkPolicy that was made from the ConfigMap.
func Decide(a *netpol.Assessment, current *netpol.Current, wasInPlace bool, options Options) Decision {
	d := Decision{Step: netpol.Replace}
	switch {
	case a.State != netpol.Applied && a.State != netpol.Pending:
		d.Warning, d.Problem = string(a.State), a.Message()
	case len(a.MissingNames) > 0:
		d.Warning, d.Problem = ReasonServiceGone, a.Message()
	}
	if len(a.Desired) == 0 {
		return d
	}
	desired := a.Desired[0]
	d.Desired, d.Message = merge(current, desired), inForceMessage(desired)
	isEdited := a.Cause == netpol.CauseEdited || a.Cause == netpol.CauseMissing && wasInPlace
	switch {
	case isEdited && (d.Warning == "" || a.State == netpol.Guarded || a.LastPolicy != nil):
		d.Reason = ReasonRestored
	case d.Warning == "" && a.Cause != netpol.CauseExpiry: // the Warning Expired reports that
		d.Reason = ReasonApplied
	}
	// An edited spec is replaced at once: a union with it would keep open what the edit opened.
	changesSpec := a.Opens && a.Cause != netpol.CauseMissing && a.Cause != netpol.CauseEdited
	d.NeedsSpec = changesSpec && (isPolicyUnchanged(a.Cause) ||
		netpol.IsLarge(max(current.Usage.CIDRs, netpol.CIDRCount(desired.Spec)), options.ChunkPeers, options.Compile))
	return d
}

// isPolicyUnchanged reports whether the cause of a change is not the policy document, but the ranges, the agent's
// options, the guardrails or the time.
func isPolicyUnchanged(cause netpol.Cause) bool {
	return cause == netpol.CauseRanges || cause == netpol.CauseOptions || cause == netpol.CauseGuardrails || cause == netpol.CauseExpiry
}

// inForceMessage returns the message of the Event about a policy that is in force.
func inForceMessage(desired *networkingv1.NetworkPolicy) string {
	destinations := desired.Annotations[netpol.DestinationsAnnotation]
	if destinations == "" {
		return fmt.Sprintf("NetworkPolicy %s is in force", desired.Name)
	}
	return fmt.Sprintf("NetworkPolicy %s is in force, with these numbers of CIDRs: %s", desired.Name, destinations)
}

// APIServer stands for the API server in the result of ServiceRegionsOf. No AWS service has a name in lower case.
var APIServer = awsranges.ServiceRegion{Service: string(policy.KubeAPIServer)}

// OpensAPIServer reports whether any of the policies opens the API server. It skips a nil policy.
func OpensAPIServer(policies ...*policy.Policy) bool {
	return slices.Contains(ServiceRegionsOf(policies...), APIServer)
}

// ServiceRegionsOf returns the services and regions that the policies name. It skips a nil policy. For a destination
// without regions, it returns the service with an empty region. For a destination with left-out services, it returns
// keys for the rows, and every region of the left-out services.
func ServiceRegionsOf(policies ...*policy.Policy) []awsranges.ServiceRegion {
	var serviceRegions []awsranges.ServiceRegion
	for _, p := range policies {
		if p == nil {
			continue
		}
		for _, destination := range p.Destinations {
			if destination.Entity != "" {
				serviceRegions = append(serviceRegions, APIServer)
			}
			if destination.Service == "" {
				continue
			}
			key := awsranges.ServiceRegion{Service: awsranges.Canonical(destination.Service), Rows: destination.Without != nil}
			if destination.Regions == nil {
				serviceRegions = append(serviceRegions, key)
			}
			for _, region := range destination.Regions {
				key.Region = region
				serviceRegions = append(serviceRegions, key)
			}
			for _, leftOut := range destination.Without {
				serviceRegions = append(serviceRegions, awsranges.ServiceRegion{Service: awsranges.Canonical(leftOut), Rows: true})
			}
		}
	}
	return serviceRegions
}
