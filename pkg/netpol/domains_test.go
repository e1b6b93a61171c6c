package netpol

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/policy"
)

var withNames = Options{Family: IPv4, AllowDNS: true, MaxPortSlots: DefaultPortSlots, Domains: Cilium}

func TestDomainsAreInTheAnnotation(t *testing.T) {
	document := `{"allowedDestinations": [
		{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]},
		{"name": "b", "domain": "b.example.com", "ports": [443]},
		{"name": "a", "domain": "*.a.example.com", "ports": [443, {"port": 53, "protocol": "UDP"}]},
		{"name": "c", "domain": "c.example.com", "ports": [443]},
		{"name": "b-too", "domain": "b.example.com", "ports": [8443]},
		{"name": "every", "domain": "d.example.com"},
		{"name": "old", "domain": "old.example.com", "expires": "2026-01-31"}]}`
	in := Inputs{Options: withNames, Now: time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC)}
	before := Assess(tenantPolicy(document), nil, in)
	require.Empty(t, before.Problems)
	require.Contains(t, before.Desired[0].Annotations[DomainsAnnotation], "old.example.com")
	in.Now = in.Now.AddDate(0, 0, 1)
	after := Assess(tenantPolicy(document), CurrentOf(stored(before)), in)
	require.Equal(t, `[{"domains":["*.a.example.com"],"ports":[{"protocol":"TCP","port":443},{"protocol":"UDP","port":53}]},`+
		`{"domains":["b.example.com"],"ports":[{"protocol":"TCP","port":443},{"protocol":"TCP","port":8443}]},`+
		`{"domains":["c.example.com"],"ports":[{"protocol":"TCP","port":443}]},{"domains":["d.example.com"]}]`, after.Desired[0].Annotations[DomainsAnnotation])
	require.Equal(t, CauseExpiry, after.Cause)
	require.Equal(t, 1, CIDRCount(after.Desired[0].Spec), "names are not in the spec")
	require.Nil(t, Assess(tenantPolicy(document), CurrentOf(stored(after)), in).Desired, "no further write")

	// An edit of the annotation is undone.
	edited := CurrentOf(stored(after))
	edited.Annotations[DomainsAnnotation] = `[{"domains":["evil.example.com"]}]`
	restored := Assess(tenantPolicy(document), edited, in)
	require.Len(t, restored.Desired, 1)
	require.Equal(t, CauseMetadata, restored.Cause)

	// defaultAction allow opens everything, and needs no names.
	allow := Assess(tenantPolicy(`{"defaultAction": "allow", "allowedDestinations": [{"name": "b", "domain": "b.example.com"}]}`), nil, in)
	require.NotContains(t, allow.Desired[0].Annotations, DomainsAnnotation)
}

// TestDomainsOff keeps the last valid version of a policy whose names the platform has turned off.
func TestDomainsOff(t *testing.T) {
	configMap := tenantPolicy(`{"allowedDestinations": [{"name": "api", "domain": "api.example.com", "ports": [443]}]}`)
	on := Assess(configMap, nil, Inputs{Options: withNames})
	off := withNames
	off.Domains = DomainsOff
	for _, table := range []bool{true, false} {
		in := Inputs{Options: off}
		if table {
			in.Table = testTable(t)
		}
		a := Assess(configMap, CurrentOf(stored(on)), in)
		require.Equal(t, Invalid, a.State)
		require.Contains(t, a.Message(), "Invalid domain: api.example.com; a NetworkPolicy has no names, and the platform has not turned on --domains")
		require.Nil(t, a.Desired)
	}
	for _, options := range []Options{withNames, off} {
		parsed, err := ParseOptions(options.String())
		require.NoError(t, err)
		require.Equal(t, options.Domains.IsOn(), parsed.Domains.IsOn())
	}
	_, err := ParseOptions("ipv4 dns domains=x max-port-slots=24")
	require.Error(t, err)
	noDNS := withNames
	noDNS.AllowDNS = false
	require.ErrorContains(t, noDNS.Validate(), "domains need the DNS rule")
}

func TestDomainLimits(t *testing.T) {
	ports := func(count int) string {
		var list []string
		for i := range count {
			list = append(list, strconv.Itoa(1000+2*i))
		}
		return strings.Join(list, ",")
	}
	problems := CompileConfigMap(tenantPolicy(`{"allowedDestinations": [{"name": "api", "domain": "api.example.com", "ports": [`+ports(25)+`]}]}`), Inputs{Options: withNames}).Problems
	require.Equal(t, []string{"Too many ports: api.example.com has 25 ports and port ranges; at most 24 are allowed for a domain: merge or remove ports (allowedDestinations)"}, textsOf(problems))

	var items []string
	for i := range policy.MaxDomains {
		items = append(items, fmt.Sprintf(`{"name": "d%d", "domain": "%s%d.example.com", "ports": [%s]}`, i, strings.Repeat("long-label.", 15), i, ports(20)+","+strconv.Itoa(2000+i)))
	}
	problems = CompileConfigMap(tenantPolicy(`{"allowedDestinations": [`+strings.Join(items, ",")+`]}`), Inputs{Options: withNames}).Problems
	require.Len(t, problems, 1)
	require.Contains(t, problems[0].Message, "Too many domains and ports: they take ")
}

func TestDomainWarnings(t *testing.T) {
	compiled := CompileConfigMap(tenantPolicy(`{"allowedDestinations": [
		{"name": "buckets", "domain": "*.s3.us-east-1.amazonaws.com", "ports": [443]},
		{"name": "bucket", "domain": "mine.s3.us-east-1.amazonaws.com", "ports": [443]},
		{"name": "every", "domain": "api.example.com"}]}`), Inputs{Options: withNames})
	require.Equal(t, []string{
		"every opens every port and protocol; name ports to open fewer (allowedDestinations[2])",
		"buckets opens *.s3.us-east-1.amazonaws.com, where every customer of the provider has names, such as those of buckets and APIs (allowedDestinations[0].domain)",
	}, textsOf(compiled.Warnings))
}

func TestDomainViolations(t *testing.T) {
	const document = `{"allowedDestinations": [
		{"name": "api", "domain": "api.example.com", "ports": [25, 443]},
		{"name": "sub", "domain": "*.sub.example.com", "ports": [443]}]}`
	const why = "; the owner of a name can lead it to any address, so only the base or a domain in within of a platform document can open it"
	for _, test := range []struct {
		name, guardrails, annotation string
		refusals                     []string
	}{
		{"a denied address", `{"denied": [{"name": "metadata", "cidr": "169.254.169.254/32", "ports": [443], "reason": "node credentials"}]}`,
			`[{"domains":["api.example.com"],"ports":[{"protocol":"TCP","port":25}]}]`, []string{
				"Denied by guardrail metadata of platform document baseline (node credentials): api opens api.example.com on TCP 443" + why + " (allowedDestinations[0])",
				"Denied by guardrail metadata of platform document baseline (node credentials): sub opens *.sub.example.com on TCP 443" + why + " (allowedDestinations[1])",
			}},
		{"a denied port", `{"denied": [{"name": "smtp", "cidr": "0.0.0.0/0", "ports": [25]}]}`,
			`[{"domains":["*.sub.example.com","api.example.com"],"ports":[{"protocol":"TCP","port":443}]}]`, []string{
				"Denied by guardrail smtp of platform document baseline: api opens api.example.com on TCP 25" + why + " (allowedDestinations[0])",
			}},
		{"outside", `{"within": [{"name": "corporate", "cidr": "10.0.0.0/8"}]}`, ``, []string{
			"Outside of what platform document baseline permits (corporate): api opens api.example.com on TCP 25, TCP 443" + why + " (allowedDestinations[0])",
			"Outside of what platform document baseline permits (corporate): sub opens *.sub.example.com on TCP 443" + why + " (allowedDestinations[1])",
		}},
		{"a trusted domain, beside a denied address", `{"denied": [{"name": "metadata", "cidr": "169.254.169.254/32"}], "within": [{"name": "own", "domain": "*.example.com", "ports": [443]}]}`,
			`[{"domains":["*.sub.example.com","api.example.com"],"ports":[{"protocol":"TCP","port":443}]}]`, []string{
				"Denied by guardrail metadata of platform document baseline: api opens api.example.com on TCP 25" + why + " (allowedDestinations[0])",
				"Outside of what platform document baseline permits (own): api opens api.example.com on TCP 25" + why + " (allowedDestinations[0])",
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			guardrails := NewGuardrails([]PlatformDocument{platformDocument(t, "baseline", `"guardrails": `+test.guardrails)}, nil, IPv4)
			compiled := CompileConfigMap(tenantPolicy(document), Inputs{Options: withNames, Guardrails: guardrails})
			require.Empty(t, compiled.Problems)
			require.Equal(t, test.refusals, textsOf(compiled.Refusals(nil)))
			require.Equal(t, test.annotation, NetworkPolicyFor(tenantPolicy(document), compiled).Annotations[DomainsAnnotation])

			// A policy that became invalid keeps its NetworkPolicy, cut in the same way.
			uncut := stored(Assess(tenantPolicy(document), nil, Inputs{Options: withNames}))
			delete(uncut.Annotations, PolicyAnnotation)
			a := Assess(tenantPolicy(`{}`), CurrentOf(uncut), Inputs{Options: withNames, Guardrails: guardrails})
			require.Equal(t, test.annotation, a.Desired[0].Annotations[DomainsAnnotation])
		})
	}
}

// TestDomainGuardrailsMatch compares random guardrails with an independent reading of them, port by port.
func TestDomainGuardrailsMatch(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 9))
	choose := func(values ...string) string { return values[random.IntN(len(values))] }
	ports := func() string { return choose(`[1]`, `[2]`, `[1, 2]`, `[{"port": 1, "endPort": 3}]`) }
	domains := []string{"a.example.com", "*.example.com", "b.a.example.com", "*.a.example.com", "example.org"}
	for range rounds(400) {
		entries := func(names ...string) string {
			var list []string
			for i, name := range names {
				list = append(list, fmt.Sprintf(`{"name": "n%d", %s, "ports": %s}`, i, name, ports()))
			}
			return "[" + strings.Join(list, ",") + "]"
		}
		var documents []PlatformDocument
		for i := range 1 + random.IntN(2) {
			fields := []string{`"mode": "` + choose("enforce", "enforce", "warn") + `"`}
			if random.IntN(2) == 0 {
				fields = append(fields, `"denied": `+entries(`"cidr": "169.254.169.254/32"`))
			}
			if random.IntN(2) == 0 || len(fields) == 1 {
				fields = append(fields, `"within": `+entries(choose(`"cidr": "0.0.0.0/0"`, `"cidr": "0.0.0.0/1"`), `"cidr": "128.0.0.0/1"`, `"domain": "`+choose(domains...)+`"`))
			}
			documents = append(documents, platformDocument(t, fmt.Sprintf("doc%d", i), `"guardrails": {`+strings.Join(fields, ",")+`}`))
		}
		domain := choose(domains...)
		configMap := tenantPolicy(`{"allowedDestinations": [{"name": "d", "domain": "` + domain + `", "ports": ` + ports() + `}]}`)
		uncut := CompileConfigMap(configMap, Inputs{Options: withNames})
		compiled := CompileConfigMap(configMap, Inputs{Options: withNames, Guardrails: NewGuardrails(documents, nil, IPv4)})
		rules, err := DomainRulesOf(NetworkPolicyFor(configMap, compiled).Annotations)
		require.NoError(t, err)
		for port := uint16(1); port <= 4; port++ {
			has := func(list []policy.Destination, match func(d policy.Destination) bool) bool {
				return slices.ContainsFunc(list, func(d policy.Destination) bool {
					return match(d) && slices.ContainsFunc(d.Ports, func(p policy.Port) bool { return p.First <= port && port <= p.Last })
				})
			}
			cidr := func(text string) func(policy.Destination) bool {
				return func(d policy.Destination) bool { return d.CIDR.IsValid() && d.CIDR.String() == text }
			}
			wanted := has(uncut.Policy.Destinations, func(policy.Destination) bool { return true })
			for _, document := range documents {
				rails := document.Guardrails
				trusted := has(rails.Within, func(d policy.Destination) bool { return d.Domain != "" && policy.CoversDomain(d.Domain, domain) })
				everywhere := rails.Within == nil || has(rails.Within, cidr("0.0.0.0/0")) || has(rails.Within, cidr("0.0.0.0/1")) && has(rails.Within, cidr("128.0.0.0/1"))
				isDenied := has(rails.Denied, func(policy.Destination) bool { return true })
				if rails.Mode == "enforce" && !trusted && (isDenied || !everywhere) {
					wanted = false
				}
			}
			opened := slices.ContainsFunc(rules, func(r DomainRule) bool {
				return slices.Contains(r.Domains, domain) && slices.ContainsFunc(r.Ports, func(p networkingv1.NetworkPolicyPort) bool {
					last := p.Port.IntVal
					if p.EndPort != nil {
						last = *p.EndPort
					}
					return p.Port.IntVal <= int32(port) && int32(port) <= last
				})
			})
			require.Equal(t, wanted, opened, "port %d of %s", port, configMap.Data)
		}
	}
}
