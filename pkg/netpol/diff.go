package netpol

import (
	"fmt"
	"net/netip"
	"slices"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/policy"
)

// Change is what another table makes of one destination.
type Change struct {
	// Name and Path are the destination's.
	Name string `json:"name"`
	Path string `json:"path"`
	// Added and Removed are the addresses that the other table opens and closes, in the fewest CIDRs,
	// sorted, IPv4 first; never nil.
	Added   []netip.Prefix `json:"added"`
	Removed []netip.Prefix `json:"removed"`
}

// Diff compares what a valid policy opens by two tables, which may be nil, in the cluster's family. It
// returns the destinations that differ, in the policy's order; empty, and not nil, for none.
func Diff(p *policy.Policy, before, after *awsranges.Table, family Family) []Change {
	if p.DefaultAction == policy.Allow {
		return []Change{}
	}
	changes := []Change{}
	for i, d := range p.Destinations {
		old, _ := resolve(d, before)
		recent, _ := resolve(d, after)
		change := Change{
			Name: d.Name, Path: fmt.Sprintf("allowedDestinations[%d]", i),
			Added:   only(family, awsranges.Subtract(recent, old)),
			Removed: only(family, awsranges.Subtract(old, recent)),
		}
		if len(change.Added)+len(change.Removed) > 0 {
			changes = append(changes, change)
		}
	}
	return changes
}

// only returns the prefixes that pods of the family can reach; never nil.
func only(family Family, prefixes []netip.Prefix) []netip.Prefix {
	kept := slices.DeleteFunc(prefixes, func(prefix netip.Prefix) bool { return !family.has(prefix) })
	if kept == nil {
		kept = []netip.Prefix{}
	}
	return kept
}
