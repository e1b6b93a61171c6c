package page

import (
	"fmt"
	"slices"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/status"
)

// opening is what one destination of a policy opens, or one rule of its NetworkPolicy.
type opening struct {
	label     string // what it opens, in a few words
	where     []phrase
	ports     string
	addresses addressCount
}

// everyDestination is the text for a rule without peers.
const everyDestination = "every destination"

// reference is a link to an item of the page.
type reference struct{ id, name string }

// ranking has the widest items of the page, the widest first.
type ranking[T any] struct {
	items []T
	more  int // the number of items that the ranking leaves out
}

// maxRanked limits the items of a ranking.
const maxRanked = 20

func newRanking[T any](sorted []T) ranking[T] {
	shown := min(len(sorted), maxRanked)
	return ranking[T]{sorted[:shown], len(sorted) - shown}
}

// openingView is what one or more policies open.
type openingView struct {
	opening
	policies []reference // the first policies, in the order of the page
	more     int         // the number of other policies
}

// openingsOf returns what the NetworkPolicy of a policy opens: the rules in force or, if inForce is empty, the
// destinations. It leaves out what opens no address, such as DNS to selected pods.
func (b *builder) openingsOf(p *status.Policy, inForce []ruleView) []opening {
	if p.Current == nil {
		return nil
	}
	var openings []opening
	add := func(label string, where []phrase, ports string, addresses extent) {
		if len(addresses) > 0 {
			openings = append(openings, opening{label, where, ports, addresses.count()})
		}
	}
	if netpol.AllowsEverything(p.Current.Spec) {
		add(everyDestination, []phrase{{text: everyDestination}}, portsText(nil), everyAddress)
		return openings
	}
	for i, rule := range inForce {
		if i < len(p.Current.Spec.Egress) { // inForce has one item if there are no rules
			add(textOf(rule.where), rule.where, rule.ports, extentOf(p.Current.Spec.Egress[i]))
		}
	}
	if len(inForce) > 0 {
		return openings
	}
	for _, d := range p.Destinations {
		addresses, _ := b.extentOfDestination(d)
		add(labelOf(d), b.where(d), portsText(d.Ports), addresses)
	}
	return openings
}

// rankOpenings ranks what the policies of the cluster open, by the share of the addresses. Policies that open the same
// addresses and ports have one item together. Of equal items, the first in the page comes first.
func rankOpenings(namespaces []namespaceView) ranking[*openingView] {
	const shownPolicies = 3
	var views []*openingView
	byContent := make(map[string]*openingView)
	for _, n := range namespaces {
		for _, p := range n.policies {
			for _, o := range p.openings {
				key := fmt.Sprintf("%#v %q", o.where, o.ports)
				view := byContent[key]
				if view == nil {
					view = &openingView{opening: o}
					byContent[key] = view
					views = append(views, view)
				}
				if len(view.policies) < shownPolicies {
					view.policies = append(view.policies, reference{p.id, p.namespace + "/" + p.name})
				} else {
					view.more++
				}
			}
		}
	}
	slices.SortStableFunc(views, func(a, b *openingView) int { return compareWidest(a.addresses, b.addresses) })
	return newRanking(views)
}

// rankLeaks ranks the other NetworkPolicies of the cluster that open egress.
func rankLeaks(namespaces []namespaceView) ranking[leakView] {
	var leaks []leakView
	for _, n := range namespaces {
		leaks = append(leaks, n.leaks...)
	}
	slices.SortStableFunc(leaks, compareLeaks)
	return newRanking(leaks)
}
