// Package netpol compiles a policy and a table of AWS ranges into a NetworkPolicy.
//
// The package is pure: equal input gives byte-equal output. No output opens more than the policy says. Above all, no
// code can build a rule without peers by mistake, because Kubernetes reads an empty "to" as every destination.
package netpol

import (
	"errors"
	"fmt"
	"net/netip"
	"sort"
	"strconv"
	"strings"
)

// Family is the address family of a cluster's pods, or both families.
type Family string

// The families, as values of --ip-family. ParseFamily turns the value "auto" into IPv4 or IPv6.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
	Dual Family = "dual"
)

// ParseFamily reads a value of --ip-family. "auto" is the family of serviceHost, which is the pod's environment
// variable KUBERNETES_SERVICE_HOST. If serviceHost is empty or a name, "auto" is IPv4.
func ParseFamily(value, serviceHost string) (Family, error) {
	switch family := Family(value); family {
	case IPv4, IPv6, Dual:
		return family, nil
	case "auto":
		if address, err := netip.ParseAddr(strings.Trim(serviceHost, "[]")); err == nil && address.Unmap().Is6() {
			return IPv6, nil
		}
		return IPv4, nil
	}
	return "", fmt.Errorf("unknown IP family %q: must be auto, ipv4, ipv6 or dual", value)
}

// Includes reports whether pods of the family can reach the prefix. It is false for an invalid prefix.
func (f Family) Includes(prefix netip.Prefix) bool {
	return prefix.IsValid() && (f == Dual || (f == IPv6) == prefix.Addr().Is6())
}

// filter returns the part of a sorted list of prefixes that pods of the family can reach.
func (f Family) filter(sorted []netip.Prefix) []netip.Prefix {
	if f == Dual {
		return sorted
	}
	ipv6 := sort.Search(len(sorted), func(i int) bool { return sorted[i].Addr().Is6() }) // IPv4 comes first
	if f == IPv6 {
		return sorted[ipv6:]
	}
	return sorted[:ipv6]
}

// String returns the family as messages name it.
func (f Family) String() string {
	switch f {
	case IPv4:
		return "IPv4"
	case IPv6:
		return "IPv6"
	}
	return "IPv4 and IPv6"
}

// Options are the properties of the cluster that shape every NetworkPolicy.
type Options struct {
	// Family limits every NetworkPolicy to the addresses that pods can reach. An invalid Family allows only IPv4.
	Family Family
	// AllowDNS adds the rule that lets pods ask kube-dns.
	AllowDNS bool
	// DNSCIDRs are further DNS servers in the DNS rule, such as NodeLocal DNSCache's 169.254.20.10/32.
	DNSCIDRs []netip.Prefix
	// MaxPortSlots is the number of ports and port ranges that a CIDR may have. The ports of containing CIDRs and of DNS
	// count as well. 0 means unlimited.
	MaxPortSlots int
	// Domains is the kind of object with which the cluster opens names. It shapes no NetworkPolicy.
	Domains Domains
}

// String returns all options, such as "ipv4 dns 169.254.20.10/32 max-port-slots=24". ParseOptions parses the result.
func (o Options) String() string {
	domains := ""
	if o.Domains.IsOn() {
		domains = " " + domainsPrefix + string(o.Domains)
	}
	return fmt.Sprintf("%s%s %s%d", o.specOptions(), domains, slotsPrefix, o.MaxPortSlots)
}

const (
	slotsPrefix   = "max-port-slots="
	domainsPrefix = "domains="
)

// specOptions returns the options that shape every spec, such as "ipv4 dns 169.254.20.10/32".
func (o Options) specOptions() string {
	words := []string{string(o.Family)}
	if o.AllowDNS {
		words = append(words, "dns")
	}
	for _, prefix := range o.DNSCIDRs {
		words = append(words, prefix.String())
	}
	return strings.Join(words, " ")
}

// ParseOptions parses a text that Options.String returned. It returns an error for any other text.
func ParseOptions(text string) (Options, error) {
	words := strings.Fields(text)
	if len(words) < 2 {
		return Options{}, fmt.Errorf("%q is not a list of options", text)
	}
	first, last := words[0], words[len(words)-1]
	var options Options
	var err error
	if options.Family, err = ParseFamily(first, ""); err != nil {
		return Options{}, err
	}
	slots, ok := strings.CutPrefix(last, slotsPrefix)
	if options.MaxPortSlots, err = strconv.Atoi(slots); err != nil || !ok {
		return Options{}, fmt.Errorf("%q is not %sN", last, slotsPrefix)
	}
	for i, word := range words[1 : len(words)-1] {
		if i == 0 && word == "dns" {
			options.AllowDNS = true
			continue
		}
		if value, ok := strings.CutPrefix(word, domainsPrefix); ok {
			if options.Domains, err = ParseDomains(value); err != nil {
				return Options{}, err
			}
			continue
		}
		prefix, err := netip.ParsePrefix(word)
		if err != nil {
			return Options{}, err
		}
		options.DNSCIDRs = append(options.DNSCIDRs, prefix)
	}
	return options, options.Validate()
}

// exceptDNS returns " but DNS" for a message about denied egress, or "" if the options do not allow DNS.
func (o Options) exceptDNS() string {
	if o.AllowDNS {
		return " but DNS"
	}
	return ""
}

// Validate returns an error that joins all errors in the options.
func (o Options) Validate() error {
	var errs []error
	if len(o.DNSCIDRs) > 0 && !o.AllowDNS {
		errs = append(errs, errors.New("DNS CIDRs need the DNS rule: remove either --dns-cidr or --allow-dns=false"))
	}
	if o.Domains.IsOn() && !o.AllowDNS {
		errs = append(errs, errors.New("domains need the DNS rule, because pods that cannot look up a name cannot use it: remove either --domains or --allow-dns=false"))
	}
	if o.MaxPortSlots < 0 {
		errs = append(errs, fmt.Errorf("%d port slots: must be at least 1, or 0 for no limit", o.MaxPortSlots))
	}
	for _, prefix := range o.DNSCIDRs {
		switch {
		case prefix != prefix.Masked():
			errs = append(errs, fmt.Errorf("DNS CIDR %s has host bits set; did you mean %s?", prefix, prefix.Masked()))
		case prefix.Addr().Is4In6():
			errs = append(errs, fmt.Errorf("DNS CIDR %s is an IPv4-mapped IPv6 prefix", prefix))
		case !o.Family.Includes(prefix):
			errs = append(errs, fmt.Errorf("DNS CIDR %s is not in the cluster's address family, %s", prefix, o.Family))
		}
	}
	return errors.Join(errs...)
}
