package netpol

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/policytest"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

// rounds returns the number of random inputs of a property test: PROPERTY_ROUNDS, or usual.
func rounds(usual int) int {
	if n, err := strconv.Atoi(os.Getenv("PROPERTY_ROUNDS")); err == nil {
		return n
	}
	return usual
}

// TestGuardrailsMatchNaiveReading compares what the NetworkPolicies of a namespace allow together with a naive reading
// of all documents: what a tenant's policy asks for, within what every platform document permits, without what any of
// them denies, and the base of each.
func TestGuardrailsMatchNaiveReading(t *testing.T) {
	table, random := testTable(t), rand.New(rand.NewPCG(20, 1))
	for range rounds(1000) {
		family := randomFamily(random)
		documents := randomDocuments(random)
		guardrails := NewGuardrails(documents, table, family)
		policies := make([]*policy.Policy, 1+random.IntN(2))
		var blocks []policytest.Block
		for i := range policies {
			policies[i] = policytest.RandomPolicy(random)
			if random.IntN(6) == 0 {
				policies[i].DefaultAction = policy.Allow
			}
			compiled := &Compiled{Policy: policies[i], options: Options{Family: family}}
			compiled.compile(Inputs{Table: table, Options: Options{Family: family}, Guardrails: guardrails}, &policy.Warnings{})
			require.Empty(t, compiled.Problems)
			spec := compiled.Spec()
			blocks = append(blocks, policytest.BlocksOf(spec)...)
			if !guardrails.Cuts() {
				require.Empty(t, compiled.guardedBy())
				continue
			}
			if compiled.isCut || policies[i].DefaultAction == policy.Deny { // otherwise one rule allows everything
				checkShape(t, spec)
			}
			require.Equal(t, compiled.isCut, compiled.guardedBy() != "", "%+v", compiled.Violations)
			require.False(t, guardrails.Violates(spec, family), "a cut spec is within the guardrails")
			uncut := &Compiled{Policy: policies[i], options: Options{Family: family}}
			uncut.compile(Inputs{Table: table, Options: Options{Family: family}}, &policy.Warnings{})
			fromSpec, isCut := guardrails.cutSpec(uncut.Spec(), Options{Family: family})
			require.Equal(t, compiled.isCut, isCut)
			if isCut && len(spec.Egress) > 0 && CIDRCount(fromSpec) > 0 {
				require.Equal(t, spec, fromSpec)
			}
		}
		for _, document := range documents {
			if document.Base == nil {
				continue
			}
			base := &Compiled{Policy: document.Base, options: Options{Family: family}}
			base.compile(Inputs{Table: table, Options: Options{Family: family}}, &policy.Warnings{})
			blocks = append(blocks, policytest.BlocksOf(base.Spec())...)
		}
		addresses := policytest.ProbeAddresses(policies[0], table, random)
		for _, document := range documents {
			addresses = append(addresses, policytest.ProbeAddresses(&policy.Policy{Destinations: slices.Concat(document.Guardrails.Denied, document.Guardrails.Within)}, table, random)...)
		}
		addresses = slices.DeleteFunc(addresses, func(address netip.Addr) bool { return family != Dual && (family == IPv6) != address.Is6() })
		random.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
		for _, address := range addresses[:min(len(addresses), 16)] {
			for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP} {
				for _, port := range []uint16{1, 52, 53, 54, 80, 443, 444, 450, 451, 1001, 65535} {
					want := namespaceAllows(policies, documents, table, family, address, protocol, port)
					if got := policytest.Allows(blocks, address, protocol, port); got != want {
						text := ""
						for _, p := range policies {
							text += fmt.Sprintf("%+v\n", *p)
						}
						for _, d := range documents {
							text += fmt.Sprintf("%+v %+v\n", d.Base, d.Guardrails)
						}
						require.Equal(t, want, got, "%s %s/%d in %s, under\n%s", address, protocol, port, family, text)
					}
				}
			}
			if policytest.Allows(blocks, address, "ICMP", 0) { // a NetworkPolicy can open ICMP only with every port
				require.True(t, namespaceAllows(policies, documents, table, family, address, "ICMP", 0), "%s ICMP", address)
			}
		}
	}
}

// namespaceAllows is the naive reading of all documents of a namespace.
func namespaceAllows(
	policies []*policy.Policy, documents []PlatformDocument, table *awsranges.Table, family Family,
	address netip.Addr, protocol policy.Protocol, port uint16,
) bool {
	opens := func(destinations []policy.Destination) bool {
		return policyAllows(&policy.Policy{Destinations: destinations}, table, family, address, protocol, port)
	}
	isPermitted := true
	for _, document := range documents {
		if document.Base != nil && opens(document.Base.Destinations) {
			return true
		}
		if g := document.Guardrails; g.Mode == platform.Enforce {
			isPermitted = isPermitted && !opens(g.Denied) && (g.Within == nil || opens(g.Within))
		}
	}
	return isPermitted && slices.ContainsFunc(policies, func(p *policy.Policy) bool {
		return p.DefaultAction == policy.Allow || opens(p.Destinations)
	})
}

// randomDocuments returns up to three platform documents, sorted by name.
func randomDocuments(random *rand.Rand) []PlatformDocument {
	var documents []PlatformDocument
	for i := range random.IntN(4) {
		d := &platform.Document{Guardrails: platform.Guardrails{Mode: platform.Enforce}}
		if random.IntN(3) == 0 {
			d.Base = policytest.RandomPolicy(random)
		}
		if random.IntN(4) == 0 {
			d.Guardrails.Mode = platform.Warn
		}
		if random.IntN(3) > 0 {
			d.Guardrails.Denied = policytest.RandomPolicy(random).Destinations
		}
		if random.IntN(3) == 0 {
			if d.Guardrails.Within = policytest.RandomPolicy(random).Destinations; d.Guardrails.Within == nil {
				d.Guardrails.Within = []policy.Destination{}
			}
		}
		documents = append(documents, PlatformDocument{fmt.Sprint("d", i), d})
	}
	return documents
}

// platformDocument parses a platform.json that governs every namespace.
func platformDocument(t testing.TB, name, fields string) PlatformDocument {
	t.Helper()
	document, problems := platform.Parse([]byte(`{"namespaces": {}, `+fields+`}`), policy.Names{})
	require.Empty(t, problems)
	return PlatformDocument{name, document}
}

func tenantPolicy(document string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "egress", UID: "u", Labels: map[string]string{policy.Label: policy.LabelValue}},
		Data:       map[string]string{policy.Key: document},
	}
}

const baselineGuardrails = `"guardrails": {"denied": [
	{"name": "metadata", "cidr": "169.254.169.254/32", "reason": "node credentials"},
	{"name": "smtp", "cidr": "0.0.0.0/0", "ports": [25]}]}`

func TestViolations(t *testing.T) {
	table, options := testTable(t), Options{Family: IPv4}
	baseline := platformDocument(t, "baseline", baselineGuardrails)
	region := platformDocument(t, "region", `"guardrails": {"within": [{"name": "s3-east", "awsService": "s3", "regions": ["us-east-1"]}, {"name": "corporate", "cidr": "10.0.0.0/8"}]}`)
	closed := platformDocument(t, "closed", `"guardrails": {"within": [], "reason": "audit until Friday"}`)
	strict := platformDocument(t, "strict", `"guardrails": {"require": ["ports", "regions", "reason", "deny"]}`)
	warns := platformDocument(t, "warns", `"guardrails": {"mode": "warn", "denied": [{"name": "ten", "cidr": "10.0.0.0/8"}]}`)
	for _, test := range []struct {
		name      string
		documents []PlatformDocument
		policy    string
		refusals  []string
		warnings  []string
		guardedBy string
	}{
		{"within the guardrails", []PlatformDocument{baseline, region},
			`{"allowedDestinations": [{"name": "a", "cidr": "10.1.0.0/16", "ports": [443]}]}`, nil, nil, ""},
		{"denied", []PlatformDocument{baseline},
			`{"allowedDestinations": [{"name": "a", "cidr": "10.0.0.0/8", "ports": [443]}, {"name": "web", "cidr": "0.0.0.0/0", "ports": [{"port": 1, "endPort": 443}]}]}`,
			[]string{
				"Denied by guardrail metadata of platform document baseline (node credentials): web opens 169.254.169.254/32 on TCP 1-443; narrow it (allowedDestinations[1])",
				"Denied by guardrail smtp of platform document baseline: web opens 0.0.0.0/0 on TCP 25; narrow it (allowedDestinations[1])",
			}, nil, "baseline/metadata baseline/smtp"},
		{"allow", []PlatformDocument{baseline}, `{"defaultAction": "allow", "allowedDestinations": []}`,
			[]string{
				"Denied by guardrail metadata of platform document baseline (node credentials): defaultAction allow opens 169.254.169.254/32 on every port; narrow it (defaultAction)",
				"Denied by guardrail smtp of platform document baseline: defaultAction allow opens 0.0.0.0/0 on TCP 25; narrow it (defaultAction)",
			}, nil, "baseline/metadata baseline/smtp"},
		{"outside", []PlatformDocument{region},
			`{"allowedDestinations": [{"name": "all", "cidr": "10.0.0.0/7", "ports": [443]}, {"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]}]}`,
			[]string{"Outside of what platform document region permits (s3-east, corporate): all opens 11.0.0.0/8 on TCP 443; narrow it (allowedDestinations[0])"}, nil, "region/within"},
		{"closed with a reason", []PlatformDocument{closed},
			`{"allowedDestinations": [{"name": "a", "cidr": "10.0.0.0/8", "ports": [443]}]}`,
			[]string{"Outside of what platform document closed permits (audit until Friday): a opens 10.0.0.0/8 on TCP 443; narrow it (allowedDestinations[0])"}, nil, "closed/within"},
		{"required fields", []PlatformDocument{strict},
			`{"defaultAction": "allow", "allowedDestinations": [{"name": "a", "awsService": "s3"}, {"name": "b", "cidr": "10.0.0.0/8", "ports": [443], "reason": "x"}]}`,
			[]string{
				"Missing field: ports; platform document strict requires it (allowedDestinations[0].ports)",
				"Missing field: regions; platform document strict requires it (allowedDestinations[0].regions)",
				"Missing field: reason; platform document strict requires it (allowedDestinations[0].reason)",
				"Invalid defaultAction: allow; must be deny; platform document strict requires it (defaultAction)",
			}, nil, ""},
		{"mode warn", []PlatformDocument{warns},
			`{"allowedDestinations": [{"name": "a", "cidr": "10.1.0.0/16", "ports": [443]}]}`, nil,
			[]string{"Denied by guardrail ten of platform document warns: a opens 10.1.0.0/16 on TCP 443; narrow it (allowedDestinations[0])"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := Inputs{Table: table, Options: options, Guardrails: NewGuardrails(test.documents, table, IPv4)}
			compiled := CompileConfigMap(tenantPolicy(test.policy), in)
			require.Empty(t, compiled.Problems)
			require.Equal(t, test.refusals, texts(compiled.Refusals(nil)))
			for _, warning := range test.warnings {
				require.Contains(t, texts(compiled.Warnings), warning)
			}
			require.Equal(t, test.guardedBy, compiled.guardedBy())
			require.Equal(t, test.guardedBy, NetworkPolicyFor(tenantPolicy(test.policy), compiled).Annotations[GuardedAnnotation])
		})
	}
}

func texts(problems policy.Problems) []string {
	var list []string
	for _, problem := range problems {
		list = append(list, problem.String())
	}
	return list
}

// A policy may have hundreds of destinations that no message names. The last of them still counts.
func TestViolationsAreBounded(t *testing.T) {
	baseline := platformDocument(t, "baseline", `"guardrails": {"denied": [{"name": "one", "cidr": "10.255.0.0/32"}]}`)
	p := &policy.Policy{}
	for i := range 900 {
		p.Destinations = append(p.Destinations, policy.Destination{Name: fmt.Sprint("d", i), CIDR: netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", i/100, i%100))})
	}
	p.Destinations = append(p.Destinations, policy.Destination{Name: "last", CIDR: netip.MustParsePrefix("10.255.0.0/24")})
	c := &Compiled{Policy: p, options: Options{Family: IPv4}}
	c.compile(Inputs{Options: c.options, Guardrails: NewGuardrails([]PlatformDocument{baseline}, nil, IPv4)}, &policy.Warnings{})
	require.Equal(t, []string{"Denied by guardrail one of platform document baseline: the policy opens 10.255.0.0/32 on every port; narrow it (allowedDestinations)"}, texts(c.Refusals(nil)))
	require.True(t, c.isCut)
	all := &Compiled{Policy: p, options: Options{Family: IPv4}}
	all.compile(Inputs{Options: c.options, Guardrails: NewGuardrails([]PlatformDocument{platformDocument(t, "none", `"guardrails": {"within": [], "reason": "x"}`)}, nil, IPv4)}, &policy.Warnings{})
	require.Len(t, all.Refusals(nil), policy.MaxProblems)
}

// current returns the Current of a NetworkPolicy, as the agent has it after it read the object.
func currentOf(networkPolicy *networkingv1.NetworkPolicy) *Current {
	stored := networkPolicy.DeepCopy()
	stored.Generation, _ = strconv.ParseInt(stored.Annotations[GenerationAnnotation], 10, 64)
	return CurrentOf(stored)
}

func TestAssessGuardrails(t *testing.T) {
	table, options := testTable(t), Options{Family: IPv4}
	guardrails := NewGuardrails([]PlatformDocument{platformDocument(t, "baseline", baselineGuardrails)}, table, IPv4)
	open, guarded := Inputs{Table: table, Options: options}, Inputs{Table: table, Options: options, Guardrails: guardrails}
	wide := tenantPolicy(`{"allowedDestinations": [{"name": "web", "cidr": "0.0.0.0/0", "ports": [443]}]}`)
	uncut := Assess(wide, nil, open).Desired[0]
	opens := func(t *testing.T, networkPolicy *networkingv1.NetworkPolicy, address string, port uint16) bool {
		t.Helper()
		return policytest.Allows(policytest.BlocksOf(networkPolicy.Spec), netip.MustParseAddr(address), policy.TCP, port)
	}
	require.True(t, opens(t, uncut, "169.254.169.254", 443))

	t.Run("a stored policy is cut", func(t *testing.T) {
		a := Assess(wide, currentOf(uncut), guarded)
		require.Equal(t, Guarded, a.State)
		require.Equal(t, "Guardrails of the platform close a part of what the policy opens: Denied by guardrail metadata of platform document baseline (node credentials): web opens 169.254.169.254/32 on TCP 443; narrow it (allowedDestinations[0])", a.Message())
		require.False(t, opens(t, a.Desired[0], "169.254.169.254", 443))
		require.True(t, opens(t, a.Desired[0], "169.254.169.253", 443))
		require.Equal(t, "baseline/metadata", a.Desired[0].Annotations[GuardedAnnotation])
		again := Assess(wide, currentOf(a.Desired[0]), guarded)
		require.Equal(t, Guarded, again.State)
		require.Empty(t, again.Desired)
		trusted := open
		trusted.TrustCurrent = true
		told := Assess(wide, currentOf(a.Desired[0]), trusted)
		require.Equal(t, Guarded, told.State)
		require.Equal(t, "These guardrails of the platform close a part of what the policy opens: baseline/metadata", told.Message())
		lifted := Assess(wide, currentOf(a.Desired[0]), open)
		require.True(t, opens(t, lifted.Desired[0], "169.254.169.254", 443))
		require.NotContains(t, lifted.Desired[0].Annotations, GuardedAnnotation)
	})
	invalid := tenantPolicy(`{"allowedDestinations": [{"name": "web", "cidr": "0.0.0.0/99"}]}`)
	t.Run("the last valid policy is cut", func(t *testing.T) {
		a := Assess(invalid, currentOf(uncut), guarded)
		require.Equal(t, Invalid, a.State)
		require.False(t, opens(t, a.Desired[0], "169.254.169.254", 443))
		require.True(t, opens(t, a.Desired[0], "169.254.169.253", 443))
	})
	t.Run("without its document, the spec itself is cut", func(t *testing.T) {
		lost := uncut.DeepCopy()
		delete(lost.Annotations, PolicyAnnotation)
		current := currentOf(lost)
		withoutSpec := *current
		withoutSpec.Spec = nil
		require.True(t, Assess(invalid, &withoutSpec, guarded).NeedsObject)
		a := Assess(invalid, current, guarded)
		require.Equal(t, Invalid, a.State)
		require.False(t, opens(t, a.Desired[0], "169.254.169.254", 443))
		require.True(t, opens(t, a.Desired[0], "169.254.169.253", 443))
		require.Equal(t, current.Annotations[PolicyDigestAnnotation], a.Desired[0].Annotations[PolicyDigestAnnotation])
		require.Empty(t, Assess(invalid, currentOf(a.Desired[0]), guarded).Desired)
	})
	t.Run("a cut that does not fit closes all", func(t *testing.T) {
		tight := options
		tight.MaxPortSlots = 2
		document := platformDocument(t, "odd", `"guardrails": {"denied": [{"name": "odd", "cidr": "0.0.0.0/0", "ports": [101, 103, 105]}]}`)
		in := Inputs{Table: table, Options: tight, Guardrails: NewGuardrails([]PlatformDocument{document}, table, IPv4)}
		range1 := tenantPolicy(`{"allowedDestinations": [{"name": "web", "cidr": "10.0.0.0/8", "ports": [{"port": 100, "endPort": 200}]}]}`)
		before := Assess(range1, nil, Inputs{Table: table, Options: tight}).Desired[0]
		a := Assess(range1, currentOf(before), in)
		require.Equal(t, Invalid, a.State)
		require.Contains(t, a.Message(), "Too many ports: 10.0.0.0/8 has 4 ports")
		require.Empty(t, a.Desired[0].Spec.Egress)
		require.NotNil(t, a.Desired[0].Spec.PolicyTypes)
		require.Empty(t, Assess(range1, currentOf(a.Desired[0]), in).Desired)
	})
	t.Run("guardrails without ranges keep what is in force", func(t *testing.T) {
		document := platformDocument(t, "aws", `"guardrails": {"denied": [{"name": "s3", "awsService": "s3"}]}`)
		in := Inputs{Options: options, Guardrails: NewGuardrails([]PlatformDocument{document}, nil, IPv4)}
		kept := Assess(wide, currentOf(uncut), in)
		require.Equal(t, RangesUnavailable, kept.State)
		require.Empty(t, kept.Desired)
		require.Equal(t, `The AWS ranges of these guardrails are not loaded yet: ["s3 of aws"]; until they are loaded, the NetworkPolicy stays as it is`, kept.Message())
		created := Assess(wide, nil, in)
		require.Empty(t, created.Desired[0].Spec.Egress)
		require.Contains(t, created.Message(), "all egress is denied")
	})
	t.Run("a reserved name", func(t *testing.T) {
		reserved := wide.DeepCopy()
		reserved.Name = "egress-platform-baseline"
		a := Assess(reserved, nil, open)
		require.Equal(t, NameConflict, a.State)
		require.Empty(t, a.Desired)
		require.Equal(t, "Reserved name: egress-platform-baseline; names that start with egress-platform- or egress-inherited- belong to the platform: rename the ConfigMap", a.Message())
	})
	t.Run("a base", func(t *testing.T) {
		document := platformDocument(t, "baseline", `"allowedDestinations": [ {"name": "ten", "cidr": "10.0.0.0/8", "ports": [443]} ]`)
		in := open
		in.Origin = Origin{Base, "egress-system/baseline"}
		base := Assess(BaseConfigMap("team-a", document), nil, in).Desired[0]
		require.Equal(t, "egress-platform-baseline", base.Name)
		require.Empty(t, base.OwnerReferences)
		require.Equal(t, Base, base.Labels[PlatformLabel])
		require.Equal(t, "egress-system/baseline", base.Annotations[SourceAnnotation])
		require.True(t, IsMade(&base.ObjectMeta))
		require.True(t, opens(t, base, "10.1.2.3", 443))
		require.Empty(t, Assess(BaseConfigMap("team-a", document), currentOf(base), in).Desired)
	})
}

// FuzzGovernedPolicy stores any two documents one after the other under one name, as a tenant may. No denied point is ever
// open in the NetworkPolicy that the agent keeps, whether the documents are valid or not.
func FuzzGovernedPolicy(f *testing.F) {
	const allow = `{"defaultAction": "allow", "allowedDestinations": []}`
	for _, seed := range []string{allow, `{"allowedDestinations": [{"name": "web", "cidr": "0.0.0.0/0"}]}`, `{"allowedDestinations": [{"name": "a", "awsService": "amazon", "ports": [{"port": 1, "endPort": 65535}]}]}`} {
		f.Add(seed, allow, true)
		f.Add(seed, `{"allowedDestinations": [{}]}`, false)
		f.Add(`{`, seed, false)
	}
	for _, seed := range []string{
		`{"allowedDestinations": [{"name": "a", "cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}, {"name": "b", "awsService": "amazon", "without": ["s3"], "except": ["198.18.0.0/24"]}]}`,
		`{"podSelector": {"matchLabels": {"app": "web"}}, "allowedDestinations": [{"name": "a", "pods": {}}, {"name": "b", "namespace": "x", "ports": [25, 443]}]}`,
		`{"allowedDestinations": [{"name": "a", "entity": "kube-apiserver"}, {"name": "b", "cidr": "0.0.0.0/0", "expires": "2027-03-31"}]}`,
	} {
		f.Add(seed, allow, false)
		f.Add(allow, seed, true)
	}
	table, err := awsranges.ReadFile("../../testdata/ranges/ip-ranges.json")
	require.NoError(f, err)
	guardrails := NewGuardrails([]PlatformDocument{platformDocument(f, "baseline", baselineGuardrails)}, table, IPv4)
	in := Inputs{
		Table: table, Options: Options{Family: IPv4, AllowDNS: true, MaxPortSlots: DefaultPortSlots}, Guardrails: guardrails,
		Now: time.Date(2027, 3, 31, 0, 0, 0, 0, time.UTC), APIServer: []netip.AddrPort{netip.MustParseAddrPort("169.254.169.254:443"), netip.MustParseAddrPort("172.20.0.1:25")},
	}
	f.Fuzz(func(t *testing.T, first, second string, forgetsDocument bool) {
		var current *Current
		var networkPolicy *networkingv1.NetworkPolicy
		for _, document := range []string{first, second, first} {
			assessment := Assess(tenantPolicy(document), current, in)
			require.False(t, assessment.NeedsObject, "current has all")
			if assessment.Desired != nil {
				networkPolicy = assessment.Desired[0]
			}
			require.NotNil(t, networkPolicy, "a policy always has a NetworkPolicy")
			require.Equal(t, []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, networkPolicy.Spec.PolicyTypes)
			blocks := policytest.BlocksOf(networkPolicy.Spec)
			for _, port := range []uint16{1, 25, 80, 443, 65535} {
				require.False(t, policytest.Allows(blocks, netip.MustParseAddr("169.254.169.254"), policy.TCP, port), "metadata, port %d", port)
				require.False(t, policytest.Allows(blocks, netip.MustParseAddr("169.254.169.254"), policy.UDP, port), "metadata, port %d", port)
			}
			for _, rule := range networkPolicy.Spec.Egress {
				isPods := len(rule.To) > 0 && rule.To[0].IPBlock == nil && !isDNSRule(rule)
				require.False(t, isPods && policytest.Allows([]policytest.Block{{Ports: rule.Ports}}, netip.Addr{}, policy.TCP, 25), "mail to a Service, which may lead anywhere")
			}
			for _, address := range []string{"0.0.0.0", "8.8.8.8", "198.18.0.1", "172.20.0.1", "255.255.255.255"} {
				require.False(t, policytest.Allows(blocks, netip.MustParseAddr(address), policy.TCP, 25), "mail to %s", address)
			}
			if forgetsDocument {
				delete(networkPolicy.Annotations, PolicyAnnotation)
			}
			current = currentOf(networkPolicy)
		}
	})
}
