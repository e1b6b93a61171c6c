package netpol

import (
	"fmt"
	"math/big"
	"net/netip"
	"strings"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/policy"
)

// NameCheck returns a function that checks names of services and regions. A name is valid if the catalogue or the table
// has it. The table may be nil.
func NameCheck(table *awsranges.Table) policy.NameCheck {
	return func(service, region string) func() string {
		switch {
		case region != "" && !table.KnowsRegion(region):
			return func() string { return regionProblem(table, region) }
		case region == "" && !table.KnowsService(awsranges.Canonical(service)):
			return func() string { return serviceProblem(table, service) }
		}
		return nil
	}
}

func serviceProblem(table *awsranges.Table, service string) string {
	return "Invalid service: " + policy.Sanitize(service) + hintSuffix(table.ServiceHint(service))
}

func regionProblem(table *awsranges.Table, region string) string {
	return "Invalid region: " + policy.Sanitize(region) + hintSuffix(table.RegionHint(region))
}

// hintSuffix returns the hint as the end of a message, with a separator, or "" if the hint is empty.
func hintSuffix(hint string) string {
	if hint == "" {
		return ""
	}
	return "; " + hint
}

// warnOfDestination adds warnings if destination d, with index i, opens more than its name suggests, or opens nothing.
// found has the addresses of d.
func warnOfDestination(i int, d policy.Destination, found addresses, table *awsranges.Table, family Family, warnings *policy.Warnings) {
	if d.Entity != "" {
		return
	}
	if d.Service == "" {
		if !family.Includes(d.CIDR) {
			warnings.Add(policy.OpensNothing, i, "cidr", "%s opens nothing: %s is not in the cluster's address family, %s", d.Name, d.CIDR, family)
		}
		return
	}
	service := awsranges.Canonical(d.Service)
	catalogued, _ := awsranges.LookupService(service)
	if catalogued.InboundOnly {
		warnings.Add(policy.InboundOnly, i, "awsService", "%s names %s, from where AWS connects to you; pods do not connect to it", d.Name, service)
	}
	if d.Without != nil && service == "AMAZON" {
		warnOfCustomers(i, d, warnings)
	} else if catalogued.AlsoCovers != "" {
		addressCount := ""
		if found.count > 0 && warnings.Wants(policy.AlsoCovers) {
			addressCount = ": " + formatAddressCount(found.prefixes(), family)
		}
		warnings.Add(policy.AlsoCovers, i, "awsService", "%s opens %s, which also covers %s%s", d.Name, service, catalogued.AlsoCovers, addressCount)
	}
	if found.isResolved {
		warnIfServiceIsEmpty(i, d, service, found, table, family, warnings)
	}
}

// warnOfCustomers adds a warning if AMAZON without other services still has the addresses of AWS's customers.
func warnOfCustomers(i int, d policy.Destination, warnings *policy.Warnings) {
	var content, services []string
	for _, customers := range awsranges.CustomersOf(canonicalNames(d.Without)) {
		content, services = append(content, customers.Content), append(services, strings.ToLower(customers.Service))
	}
	if content != nil {
		warnings.Add(policy.AlsoCovers, i, "without", "%s also opens every AWS customer's %s; add %s to without to close them",
			d.Name, strings.Join(content, ", "), strings.Join(services, ", "))
	}
}

// warnIfServiceIsEmpty adds a warning if a service has no prefix in the cluster's family. Otherwise it adds a warning
// for each region in d.Regions without such a prefix.
func warnIfServiceIsEmpty(i int, d policy.Destination, service string, found addresses, table *awsranges.Table, family Family, warnings *policy.Warnings) {
	leftOut := canonicalNames(d.Without)
	if leftOut != nil {
		service += " without " + joinNames(leftOut)
	}
	if d.Except != nil {
		service += ", with this except,"
	}
	if found.count == 0 {
		warnings.Add(policy.OpensNothing, i, "", "%s opens nothing: %s has no %s prefixes in its regions", d.Name, service, family)
		return
	}
	for k, region := range d.Regions {
		if len(family.filter(servicePrefixes(awsranges.Canonical(d.Service), d.Regions[k:k+1], leftOut, table))) == 0 {
			warnings.Add(policy.OpensNothing, i, fmt.Sprintf("regions[%d]", k), "%s opens nothing in %s: %s has no %s prefixes there", d.Name, policy.Sanitize(region), service, family)
		}
	}
}

// formatAddressCount returns the number of addresses in disjoint prefixes, such as "2621440 IPv4 addresses and over
// 2^80 IPv6 addresses". It leaves out a family without addresses, and rounds IPv6 down to a power of two.
func formatAddressCount(prefixes []netip.Prefix, family Family) string {
	var ipv4 int64
	var ipv6 big.Int
	for _, prefix := range prefixes {
		if !family.Includes(prefix) {
			continue
		}
		if hostBits := prefix.Addr().BitLen() - prefix.Bits(); prefix.Addr().Is4() {
			ipv4 += 1 << hostBits
		} else {
			ipv6.Add(&ipv6, new(big.Int).Lsh(big.NewInt(1), uint(hostBits)))
		}
	}
	var text string
	if ipv4 > 0 {
		text = fmt.Sprintf("%d IPv4 addresses", ipv4)
	}
	if ipv6.Sign() > 0 {
		if text != "" {
			text += " and "
		}
		text += fmt.Sprintf("over 2^%d IPv6 addresses", ipv6.BitLen()-1)
	}
	return text
}
