package ledger

import (
	"math"
	"slices"

	"egress-agent/pkg/netpol"
)

// usage counts the CIDRs and ports of the agent's NetworkPolicies in a namespace.
type usage struct {
	byName map[string]netpol.Usage // by the NetworkPolicy's name
	cidrs  int                     // sum over all NetworkPolicies
	ports  map[netpol.PortKey]int  // how many NetworkPolicies use a port
	many   int                     // how many NetworkPolicies have Usage.Many, so that ports lacks some of their ports
}

// set counts newUsage in place of the previous usage with this name.
func (u *usage) set(name string, newUsage netpol.Usage) {
	u.subtract(name)
	if u.byName == nil {
		u.byName, u.ports = make(map[string]netpol.Usage, 1), make(map[netpol.PortKey]int, len(newUsage.Ports))
	}
	u.byName[name] = newUsage
	u.cidrs += newUsage.CIDRs
	if newUsage.Many {
		u.many++
	}
	for _, port := range newUsage.Ports {
		u.ports[port]++
	}
}

func (u *usage) drop(name string) {
	u.subtract(name)
	delete(u.byName, name)
}

// subtract subtracts the usage with this name from the sums.
func (u *usage) subtract(name string) {
	previous := u.byName[name]
	u.cidrs -= previous.CIDRs
	if previous.Many {
		u.many--
	}
	for _, port := range previous.Ports {
		if u.ports[port]--; u.ports[port] == 0 {
			delete(u.ports, port)
		}
	}
}

// total returns the results of Ledger.Total.
func (u *usage) total(name string, newUsage netpol.Usage) (cidrs, ports int, others []string) {
	previous := u.byName[name]
	cidrs, ports = u.cidrs-previous.CIDRs+newUsage.CIDRs, len(u.ports)
	for _, port := range previous.Ports {
		if u.ports[port] == 1 && !slices.Contains(newUsage.Ports, port) {
			ports--
		}
	}
	for _, port := range newUsage.Ports {
		if u.ports[port] == 0 {
			ports++
		}
	}
	if newUsage.Many || u.many > 1 || u.many == 1 && !previous.Many {
		ports = math.MaxInt32 // the number is unknown
	}
	for otherName, otherUsage := range u.byName {
		if otherName != name && (otherUsage.CIDRs > 0 || otherUsage.Many) {
			others = append(others, otherName)
		}
	}
	slices.Sort(others)
	return cidrs, ports, others
}
