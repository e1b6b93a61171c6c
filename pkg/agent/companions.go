package agent

import (
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/agent/internal/companions"
)

// companionSet has the companions of an agent; each is nil if it is off.
type companionSet struct{ reports, serviceEntries, domains *companions.Companions }

// newCompanions returns the companions that the options turn on.
func (a *Agent) newCompanions(clients Clients) (set companionSet) {
	opensNames := a.options.Compile.Domains.IsOn()
	if a.options.Companions == (Companions{}) && !opensNames {
		return set
	}
	config := companions.Config{
		Client: clients.Dynamic, Discovery: clients.API.Discovery(), FieldManager: Name, CheckLease: a.lease.check,
		Metrics: companions.NewMetrics(a.options.Metrics), Log: a.log,
	}
	if a.options.Companions.Reports {
		set.reports = companions.New(companions.Reports(a.controller.Report), config)
	}
	if a.options.Companions.ServiceEntries {
		set.serviceEntries = companions.New(companions.ServiceEntries(clients.API), config)
	}
	if opensNames {
		set.domains = companions.New(companions.Domains(clients.API, a.options.Compile), config)
	}
	return set
}

// enqueue syncs the companions of a NetworkPolicy that was synced.
func (s *companionSet) enqueue(key cache.ObjectName) {
	if s.reports != nil {
		s.reports.Enqueue(companions.NamespaceKey(key.Namespace))
	}
	if s.serviceEntries != nil {
		s.serviceEntries.Enqueue(key)
	}
	if s.domains != nil {
		s.domains.Enqueue(key)
	}
}

func (s *companionSet) all() []*companions.Companions {
	var all []*companions.Companions
	for _, c := range []*companions.Companions{s.reports, s.serviceEntries, s.domains} {
		if c != nil {
			all = append(all, c)
		}
	}
	return all
}
