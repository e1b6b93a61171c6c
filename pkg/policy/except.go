package policy

import (
	"net/netip"
	"slices"

	"egress-agent/pkg/internal/document"
	"egress-agent/pkg/internal/prefixes"
)

// The limits of except. A prefix that is taken out of a wide CIDR leaves up to 128 prefixes, and one that is taken out
// of a service takes a copy of the service's prefixes.
const (
	MaxExcepts          = 1000 // in a policy
	MaxExceptedServices = 20   // destinations with awsService and except in a policy
)

func (v *validator) except(n document.Node, path *document.Path) []netip.Prefix {
	if !v.CheckKind(n, document.List, path, "except") {
		return nil
	}
	count := n.Count()
	if count == 0 {
		v.Report(path, "Invalid except: []; list at least one CIDR, or omit except")
	}
	if v.exceptCount <= MaxExcepts && v.exceptCount+count > MaxExcepts {
		v.Report(path, "Too many except CIDRs: at most %d are allowed in a policy: except wider CIDRs, or allow narrower destinations", MaxExcepts)
	}
	if v.exceptCount += count; v.exceptCount > MaxExcepts {
		return nil
	}
	except := make([]netip.Prefix, 0, count)
	i := -1
	for item := range n.Children {
		i++
		at := v.ItemPath(path, i)
		if !v.CheckKind(item, document.Text, at, "except") {
			continue
		}
		prefix, err := netip.ParsePrefix(item.Text())
		if problem := cidrProblem(item.Text(), prefix, err); problem != "" {
			v.Report(at, "Invalid CIDR format: %s", problem)
			continue
		}
		if slices.Contains(except, prefix) {
			v.Report(at, "Duplicate except: %s", prefix)
			continue
		}
		except = append(except, prefix)
	}
	return except
}

// checkExcept checks the except of a destination together with its cidr.
func (v *validator) checkExcept(d Destination, path *document.Path) {
	if d.Except == nil {
		return
	}
	if d.Service != "" {
		if v.exceptedServiceCount++; v.exceptedServiceCount == MaxExceptedServices+1 {
			v.Report(path.Field("except"), "Too many destinations with awsService and except: at most %d are allowed in a policy: merge some", MaxExceptedServices)
		}
		return
	}
	if !d.CIDR.IsValid() || d.CIDR != d.CIDR.Masked() || d.CIDR.Addr().Is4In6() {
		return // v.cidr has reported a problem
	}
	for _, prefix := range d.Except {
		if !prefixes.Contains(d.CIDR, prefix) {
			v.Report(path.Field("except"), "Invalid except: %s is not inside %s; except can only take addresses out of cidr", prefix, d.CIDR)
			return
		}
	}
	if prefixes.Subtract([]netip.Prefix{d.CIDR}, d.Except) == nil {
		v.Report(path.Field("except"), "Invalid except: nothing of %s remains; except fewer addresses, or remove the destination", d.CIDR)
	}
}
