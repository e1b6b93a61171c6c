package policy

import (
	"net/netip"
	"strings"

	"egress-agent/pkg/internal/document"
)

// MaxDomains is the number of destinations with a domain in a policy.
const MaxDomains = 100

// IsWildcard reports whether a domain, such as *.example.com, stands for every name below a name.
func IsWildcard(domain string) bool { return strings.HasPrefix(domain, "*.") }

// CoversDomain reports whether a domain stands for every name that another domain stands for. *.example.com stands for
// every name below example.com, at any depth, but not for example.com.
func CoversDomain(domain, other string) bool {
	if !IsWildcard(domain) {
		return domain == other
	}
	return strings.HasSuffix(other, domain[1:])
}

func (v *validator) domain(n document.Node, path *document.Path) string {
	if v.domainCount++; v.domainCount == MaxDomains+1 {
		v.Report(path, "Too many domains: at most %d are allowed in a policy: use a wildcard such as *.example.com, or split the policy into several ConfigMaps", MaxDomains)
	}
	if !v.CheckKind(n, document.Text, path, "domain") {
		return ""
	}
	domain := n.Text()
	if problem := domainProblem(domain); problem != "" {
		v.Report(path, "Invalid domain: %s; %s", Sanitize(domain), problem)
	} else if v.names.Domain != nil {
		if message := v.names.Domain(domain); message != nil {
			v.ReportLazily(path, message)
		}
	}
	return domain
}

// domainProblem returns the problem of a domain, or "" if the domain is valid.
func domainProblem(domain string) string {
	const maxLength = 253 // of a name in DNS, without a final dot
	name := strings.TrimPrefix(domain, "*.")
	plain := strings.ToLower(strings.TrimSuffix(name, "."))
	_, addressErr := netip.ParseAddr(strings.Trim(domain, "[]"))
	_, prefixErr := netip.ParsePrefix(domain)
	switch {
	case addressErr == nil || prefixErr == nil:
		return "an address: use cidr"
	case strings.ContainsAny(domain, ":/"):
		return "must be a name alone, without scheme, port and path"
	case len(domain) > maxLength:
		return "a name has at most 253 characters"
	case strings.Contains(name, "*"):
		return "* can stand only for the first labels of a name, as in *.example.com"
	case !isDomainName(plain):
		return "must be a name such as api.example.com or *.example.com"
	case plain != name:
		return "did you mean " + strings.TrimSuffix(domain, name) + plain + "?"
	case strings.HasSuffix("."+name, ".cluster.local"), strings.HasSuffix(name, ".svc"):
		return "a name of the cluster: use pods and namespace, or entity kube-apiserver"
	case !strings.Contains(name, "."):
		return "must have at least two labels, such as example.com"
	}
	return ""
}

// isDomainName reports whether text is a name that every dataplane accepts. The last label has a letter, so an address
// is no name.
func isDomainName(text string) bool {
	const letters, others = "abcdefghijklmnopqrstuvwxyz", "0123456789"
	labels := strings.Split(text, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.Trim(label, letters+others+"-_") != "" || strings.ContainsAny(label[:1]+label[len(label)-1:], "-_") {
			return false
		}
	}
	return strings.ContainsAny(labels[len(labels)-1], letters)
}
