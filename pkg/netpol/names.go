package netpol

import (
	"fmt"
	"math/big"
	"net/netip"
	"slices"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/policy"
)

// Names judges service and region names by the catalogue and the table, which may be nil.
func Names(table *awsranges.Table) policy.Names {
	return func(service, region string) string {
		if region != "" {
			return regionProblem(table, region)
		}
		return serviceProblem(table, service)
	}
}

func serviceProblem(table *awsranges.Table, service string) string {
	name := awsranges.Canonical(service)
	if table.KnowsService(name) {
		return ""
	}
	message := "Invalid service: " + policy.Show(service)
	if advice := awsranges.Advice(name); advice != "" {
		return message + "; " + advice
	}
	return message + didYouMean(table.NearestService(service))
}

func regionProblem(table *awsranges.Table, region string) string {
	if table.KnowsRegion(region) {
		return ""
	}
	return "Invalid region: " + policy.Show(region) + didYouMean(table.NearestRegion(region))
}

func didYouMean(name string) string {
	if name == "" {
		return ""
	}
	return "; did you mean " + name + "?"
}

// warnings says what the i-th destination opens beyond its name, or that it opens nothing. prefixes and resolved are what resolve gave for it.
func warnings(i int, d policy.Destination, prefixes []netip.Prefix, resolved bool, table *awsranges.Table, family Family) policy.Problems {
	if d.Service == "" && family.has(d.CIDR) {
		return nil
	}
	path := fmt.Sprintf("allowedDestinations[%d]", i)
	if d.Service == "" {
		return policy.Problems{{Message: fmt.Sprintf("%s opens nothing: %s is not in the cluster's address family, %s", d.Name, d.CIDR, family), Path: path + ".cidr"}}
	}
	service := awsranges.Canonical(d.Service)
	catalogued, _ := awsranges.Catalogued(service)
	var found policy.Problems
	if catalogued.CallsIn {
		found = append(found, policy.Problem{Message: fmt.Sprintf("%s names %s, from where AWS connects to you; pods do not connect to it", d.Name, service), Path: path + ".awsService"})
	}
	if catalogued.AlsoCovers != "" {
		message := fmt.Sprintf("%s opens %s, which also covers %s", d.Name, service, catalogued.AlsoCovers)
		if addresses := count(prefixes, family); addresses != "" {
			message += ": " + addresses
		}
		found = append(found, policy.Problem{Message: message, Path: path + ".awsService"})
	}
	if resolved {
		found = append(found, nothingOpened(d, service, path, prefixes, table, family)...)
	}
	return found
}

// nothingOpened warns of a service without a prefix in the cluster's family, or else of each named
// region without one.
func nothingOpened(d policy.Destination, service, path string, prefixes []netip.Prefix, table *awsranges.Table, family Family) policy.Problems {
	if !slices.ContainsFunc(prefixes, family.has) {
		return policy.Problems{{Message: fmt.Sprintf("%s opens nothing: %s has no %s prefixes in its regions", d.Name, service, family), Path: path}}
	}
	var found policy.Problems
	for i, region := range d.Regions {
		if !slices.ContainsFunc(table.Lookup(service, region), family.has) {
			message := fmt.Sprintf("%s opens nothing in %s: %s has no %s prefixes there", d.Name, policy.Show(region), service, family)
			found = append(found, policy.Problem{Message: message, Path: fmt.Sprintf("%s.regions[%d]", path, i)})
		}
	}
	return found
}

// count gives the number of addresses in disjoint prefixes, as "2621440 IPv4 addresses and 2^80 IPv6
// addresses", each family where it has any; IPv6 to the power of two below it.
func count(prefixes []netip.Prefix, family Family) string {
	var ipv4 int64
	var ipv6 big.Int
	for _, prefix := range prefixes {
		if !family.has(prefix) {
			continue
		}
		if hostBits := prefix.Addr().BitLen() - prefix.Bits(); prefix.Addr().Is4() {
			ipv4 += 1 << hostBits
		} else {
			ipv6.Add(&ipv6, new(big.Int).Lsh(big.NewInt(1), uint(hostBits)))
		}
	}
	var counted string
	if ipv4 > 0 {
		counted = fmt.Sprintf("%d IPv4 addresses", ipv4)
	}
	if ipv6.Sign() > 0 {
		if counted != "" {
			counted += " and "
		}
		counted += fmt.Sprintf("over 2^%d IPv6 addresses", ipv6.BitLen()-1)
	}
	return counted
}
