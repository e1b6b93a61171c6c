// Package cli is what the two programs' command lines share: the flags that shape every policy,
// reading manifests, and the program's version and log.
package cli

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
)

// Exit statuses of every verb.
const (
	ExitOK      = 0
	ExitInvalid = 1 // a policy is invalid; of a running program: it failed
	ExitUsage   = 2 // wrong usage, or unreadable input
)

// PolicyFlags are the flags that shape every policy, the same for the programs and their offline verbs.
type PolicyFlags struct {
	RangesFile   string
	CustomRanges Strings
	TrustCustom  bool
	IPFamily     string
	AllowDNS     bool
	DNSCIDRs     Strings
	MaxPortSlots int
}

// NewPolicyFlags returns the defaults.
func NewPolicyFlags() *PolicyFlags {
	return &PolicyFlags{IPFamily: "auto", AllowDNS: true, MaxPortSlots: netpol.DefaultPortSlots}
}

// AddFlags registers the flags.
func (r *PolicyFlags) AddFlags(flags *flag.FlagSet) {
	flags.StringVar(&r.RangesFile, "ranges-file", r.RangesFile, "read AWS's ip-ranges.json from `FILE`, plain or gzip")
	flags.Var(&r.CustomRanges, "custom-ranges", "add an organisation's own services from `FILE`, in the format of ip-ranges.json (repeatable)")
	flags.BoolVar(&r.TrustCustom, "trust-custom-ranges", r.TrustCustom, "take custom ranges that bear a name of AWS's, such as s3, or are wider than /8 (IPv6: /32)")
	flags.StringVar(&r.IPFamily, "ip-family", r.IPFamily, "address `family` of the cluster's pods: auto, ipv4, ipv6 or dual; auto reads KUBERNETES_SERVICE_HOST, and is ipv4 outside a cluster")
	flags.BoolVar(&r.AllowDNS, "allow-dns", r.AllowDNS, "let every policy reach the cluster's DNS (k8s-app=kube-dns in kube-system)")
	flags.Var(&r.DNSCIDRs, "dns-cidr", "a further DNS server's `CIDR`, such as 169.254.20.10/32 for NodeLocal DNSCache (repeatable)")
	flags.IntVar(&r.MaxPortSlots, "max-port-slots", r.MaxPortSlots, "how many ports and port ranges the dataplane keeps for a CIDR, those of containing CIDRs and of DNS among them; 0 is no limit")
}

// Options checks the flags, and returns what they say. The error joins all that is wrong.
func (r *PolicyFlags) Options() (netpol.Options, error) {
	family, err := netpol.ParseFamily(r.IPFamily, os.Getenv("KUBERNETES_SERVICE_HOST"))
	errs := []error{err}
	options := netpol.Options{Family: family, AllowDNS: r.AllowDNS, MaxPortSlots: r.MaxPortSlots}
	for _, value := range r.DNSCIDRs {
		prefix, err := netip.ParsePrefix(value)
		if err != nil {
			errs = append(errs, fmt.Errorf("invalid --dns-cidr %q: must be a CIDR such as 169.254.20.10/32", value))
			continue
		}
		options.DNSCIDRs = append(options.DNSCIDRs, prefix)
	}
	if err == nil {
		errs = append(errs, options.Validate())
	}
	return options, errors.Join(errs...)
}

// Custom returns the custom ranges that the flags name.
func (r *PolicyFlags) Custom() awsranges.Custom {
	return awsranges.Custom{Files: r.CustomRanges, Trusted: r.TrustCustom}
}

// Table reads the ranges that the flags name; nil where they name none. note is called for each custom row
// that only --trust-custom-ranges allows.
func (r *PolicyFlags) Table(note func(message string)) (*awsranges.Table, error) {
	custom := r.Custom()
	custom.Note = note
	return awsranges.ReadFiles(r.RangesFile, custom)
}

// Strings is a flag that may be given several times.
type Strings []string

// String gives the values as the flag package prints defaults.
func (s *Strings) String() string {
	if len(*s) == 0 {
		return ""
	}
	return fmt.Sprint(*s)
}

// Set adds a value.
func (s *Strings) Set(value string) error {
	*s = append(*s, value)
	return nil
}
