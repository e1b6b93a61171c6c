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
	many   int                     // how many NetworkPolicies use ports that are not counted
}

func (u *usage) set(name string, own netpol.Usage) {
	u.subtract(name)
	if u.byName == nil {
		u.byName, u.ports = make(map[string]netpol.Usage, 1), make(map[netpol.PortKey]int, len(own.Ports))
	}
	u.byName[name] = own
	u.cidrs += own.CIDRs
	if own.Many {
		u.many++
	}
	for _, port := range own.Ports {
		u.ports[port]++
	}
}

func (u *usage) drop(name string) {
	u.subtract(name)
	delete(u.byName, name)
}

func (u *usage) subtract(name string) {
	own := u.byName[name]
	u.cidrs -= own.CIDRs
	if own.Many {
		u.many--
	}
	for _, port := range own.Ports {
		if u.ports[port]--; u.ports[port] == 0 {
			delete(u.ports, port)
		}
	}
}

func (u *usage) total(name string, own netpol.Usage) (cidrs, ports int, others []string) {
	previous := u.byName[name]
	cidrs, ports = own.CIDRs+u.cidrs-previous.CIDRs, len(u.ports)
	for _, port := range previous.Ports {
		if u.ports[port] == 1 && !slices.Contains(own.Ports, port) {
			ports--
		}
	}
	for _, port := range own.Ports {
		if u.ports[port] == 0 {
			ports++
		}
	}
	if own.Many || u.many > 1 || u.many == 1 && !previous.Many {
		ports = math.MaxInt32 // any number of them
	}
	for other, usage := range u.byName {
		if other != name && (usage.CIDRs > 0 || usage.Many) {
			others = append(others, other)
		}
	}
	slices.Sort(others)
	return cidrs, ports, others
}
