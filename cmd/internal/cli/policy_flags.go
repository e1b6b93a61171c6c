// Package cli is the common part of the two programs' command lines: flags, policies in files, escaped output, the
// version, the log and the health server.
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

// The exit statuses of every command.
const (
	ExitOK      = 0
	ExitInvalid = 1 // a policy is invalid, or the running program failed
	ExitUsage   = 2 // wrong usage, or unreadable input
)

// PolicyFlags has the flags that affect every policy. The programs and their offline commands all have these flags.
type PolicyFlags struct {
	RangesFile   string
	CustomRanges Strings
	TrustCustom  bool
	IPFamily     string
	AllowDNS     bool
	DNSCIDRs     Strings
	MaxPortSlots int
	Domains      string
}

// NewPolicyFlags returns PolicyFlags with the default values.
func NewPolicyFlags() *PolicyFlags {
	return &PolicyFlags{IPFamily: "auto", AllowDNS: true, MaxPortSlots: netpol.DefaultPortSlots, Domains: string(netpol.DomainsOff)}
}

// AddFlags adds the flags of f to flagSet.
func (f *PolicyFlags) AddFlags(flagSet *flag.FlagSet) {
	flagSet.StringVar(&f.RangesFile, "ranges-file", f.RangesFile, "read AWS's ip-ranges.json from `FILE`, plain or gzip")
	flagSet.Var(&f.CustomRanges, "custom-ranges", "add an organisation's own services from `FILE`, in the format of ip-ranges.json (repeatable)")
	flagSet.BoolVar(&f.TrustCustom, "trust-custom-ranges", f.TrustCustom, "accept custom ranges that have the name of an AWS service, such as s3, or are wider than /8 (IPv6: /32)")
	flagSet.StringVar(&f.IPFamily, "ip-family", f.IPFamily, "address `family` of the cluster's pods: auto, ipv4, ipv6 or dual; auto reads KUBERNETES_SERVICE_HOST, and is ipv4 outside a cluster")
	flagSet.BoolVar(&f.AllowDNS, "allow-dns", f.AllowDNS, "allow the cluster's DNS in every policy (k8s-app=kube-dns in kube-system)")
	flagSet.Var(&f.DNSCIDRs, "dns-cidr", "`CIDR` of a further DNS server, such as 169.254.20.10/32 for NodeLocal DNSCache (repeatable)")
	flagSet.IntVar(&f.MaxPortSlots, "max-port-slots", f.MaxPortSlots, "maximum number of ports and port ranges for a CIDR, including those of containing CIDRs and of DNS; 0 means no limit")
	flagSet.StringVar(&f.Domains, "domains", f.Domains, "`kind` of the objects that open the domain destinations of policies: off, applicationnetworkpolicy (nodes of EKS Auto Mode) or cilium; off refuses these destinations")
}

// Options checks the flags and returns them as options. The error joins an error for each invalid flag.
func (f *PolicyFlags) Options() (netpol.Options, error) {
	family, err := netpol.ParseFamily(f.IPFamily, os.Getenv("KUBERNETES_SERVICE_HOST"))
	domains, domainsErr := netpol.ParseDomains(f.Domains)
	errs := []error{err, domainsErr}
	options := netpol.Options{Family: family, AllowDNS: f.AllowDNS, MaxPortSlots: f.MaxPortSlots, Domains: domains}
	for _, value := range f.DNSCIDRs {
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

// Custom returns the files of --custom-ranges, and whether the user trusts them.
func (f *PolicyFlags) Custom() awsranges.CustomFiles {
	return awsranges.CustomFiles{Files: f.CustomRanges, Trusted: f.TrustCustom}
}

// Table reads the files of --ranges-file and --custom-ranges. It returns nil if there are no such files. It calls note
// for each custom row that needs --trust-custom-ranges.
func (f *PolicyFlags) Table(note func(message string)) (*awsranges.Table, error) {
	custom := f.Custom()
	custom.OnSuspicious = note
	return awsranges.ReadFiles(f.RangesFile, custom)
}

// Strings is the value of a flag that may occur several times.
type Strings []string

// String returns the values in the form that package flag prints as a default. It returns "" if there are no values.
func (s *Strings) String() string {
	if len(*s) == 0 {
		return ""
	}
	return fmt.Sprint(*s)
}

// Set appends a value.
func (s *Strings) Set(value string) error {
	*s = append(*s, value)
	return nil
}
