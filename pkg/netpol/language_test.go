package netpol

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/policytest"
	"egress-agent/pkg/policy"
)

// TestLanguageMatchesNaiveReading compares what a NetworkPolicy allows, to addresses and to pods, with a naive reading of
// policies that use every field.
func TestLanguageMatchesNaiveReading(t *testing.T) {
	table, random := testTable(t), rand.New(rand.NewPCG(21, 1))
	start := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	moments := []time.Time{start, start.Add(time.Second), start.Add(24 * time.Hour)}
	for range rounds(1000) {
		p, now := policytest.RandomLanguagePolicy(random, moments), moments[random.IntN(len(moments))].Add(-time.Duration(random.IntN(2))*time.Second)
		compiled := &Compiled{Policy: p, options: Options{Family: IPv4}}
		compiled.compile(Inputs{Table: table, Options: Options{Family: IPv4}, Now: now}, &policy.Warnings{})
		require.Empty(t, compiled.Problems)
		spec := compiled.Spec()
		for _, rule := range spec.Egress {
			require.NotEmpty(t, rule.To, "a rule without peers opens everything")
		}
		again, _ := compileAt(p, table, now)
		require.Equal(t, spec, again)
		require.Equal(t, nextMoment(p, now), compiled.NextChange)
		alive := *p
		alive.Destinations = slices.DeleteFunc(slices.Clone(p.Destinations), func(d policy.Destination) bool { return d.IsExpired(now) })
		blocks := policytest.BlocksOf(spec)
		for _, address := range policytest.ProbeAddresses(p, table, random)[:8] {
			for _, port := range []uint16{1, 53, 443, 445, 1001} {
				want := policyAllows(&alive, table, IPv4, address, policy.TCP, port)
				if got := policytest.Allows(blocks, address, policy.TCP, port); got != want {
					require.Equal(t, want, got, "%s %d under %+v", address, port, p.Destinations)
				}
			}
		}
		for _, pod := range policytest.Pods() {
			require.Equal(t, pod.Namespace == policytest.OwnNamespace && (p.PodSelector == nil || pod.Labels["app"] == "web"), policytest.Selects(spec, pod))
			for _, port := range []uint16{1, 53, 443, 445, 1001} {
				want := policyAllows(&alive, table, IPv4, pod.Address, policy.TCP, port) || opensPod(&alive, pod, port)
				if got := policytest.AllowsPod(spec, pod, policy.TCP, port); got != want {
					require.Equal(t, want, got, "%+v %d under %+v", pod, port, p.Destinations)
				}
			}
		}
	}
}

func compileAt(p *policy.Policy, table *awsranges.Table, now time.Time) (networkingv1.NetworkPolicySpec, *Compiled) {
	compiled := &Compiled{Policy: p, options: Options{Family: IPv4}}
	compiled.compile(Inputs{Table: table, Options: Options{Family: IPv4}, Now: now}, &policy.Warnings{})
	return compiled.Spec(), compiled
}

// opensPod is the naive reading of destinations with pods.
func opensPod(p *policy.Policy, pod policytest.Pod, port uint16) bool {
	return slices.ContainsFunc(p.Destinations, func(d policy.Destination) bool {
		if d.Pods == nil {
			return false
		}
		for key, value := range d.Pods.Labels {
			if pod.Labels[key] != value {
				return false
			}
		}
		isInNamespace := pod.Namespace == d.Pods.Namespace || d.Pods.Namespace == "" && pod.Namespace == policytest.OwnNamespace
		return isInNamespace && (d.Ports == nil || slices.ContainsFunc(d.Ports, func(opened policy.Port) bool {
			return opened.Protocol == policy.TCP && opened.First <= port && port <= opened.Last
		}))
	})
}

// nextMoment is the naive reading of Compiled.NextChange.
func nextMoment(p *policy.Policy, now time.Time) time.Time {
	var next time.Time
	for _, d := range p.Destinations {
		for _, days := range []int{0, 1, 7, 30} {
			moment := d.Expires.AddDate(0, 0, -days)
			if !d.Expires.IsZero() && moment.After(now) && (next.IsZero() || moment.Before(next)) {
				next = moment
			}
		}
	}
	return next
}

func TestExpiry(t *testing.T) {
	document := `{"allowedDestinations": [
		{"name": "always", "cidr": "10.0.0.0/24", "ports": [443]},
		{"name": "day", "cidr": "10.0.1.0/24", "ports": [443], "expires": "2027-03-31"},
		{"name": "instant", "cidr": "10.0.2.0/24", "ports": [443], "expires": "2027-03-31T18:00:00+02:00"}]}`
	at := func(text string) *Compiled {
		now, err := time.Parse(time.RFC3339, text)
		require.NoError(t, err)
		compiled := CompileConfigMap(tenantPolicy(document), Inputs{Options: Options{Family: IPv4}, Now: now})
		require.Empty(t, compiled.Problems)
		return compiled
	}
	cidrs := func(c *Compiled) []string {
		var found []string
		for _, block := range policytest.BlocksOf(c.Spec()) {
			found = append(found, block.Prefix.String())
		}
		return found
	}
	early := at("2027-01-01T00:00:00Z")
	require.Len(t, cidrs(early), 2, "10.0.0.0/23 and 10.0.2.0/24")
	require.Empty(t, early.Refusals(nil))
	require.Empty(t, early.Warnings)
	require.Equal(t, "2027-03-01T16:00:00Z", early.NextChange.Format(time.RFC3339))

	soon := at("2027-03-30T23:59:59Z")
	require.Equal(t, "These destinations expire and then open nothing: within 1 day: instant on 2027-03-31T16:00:00Z; within 7 days: day on 2027-03-31", soon.ExpiringText())
	require.Equal(t, []string{
		"day expires within 7 days: 2027-03-31; set a later date if its pods still need it (allowedDestinations[1].expires)",
		"instant expires within 1 day: 2027-03-31T16:00:00Z; set a later date if its pods still need it (allowedDestinations[2].expires)",
	}, []string{soon.Warnings[0].String(), soon.Warnings[1].String()})

	require.Equal(t, []string{"10.0.0.0/23", "10.0.2.0/24"}, cidrs(at("2027-03-31T15:59:59Z")))
	require.Equal(t, []string{"10.0.0.0/23"}, cidrs(at("2027-03-31T16:00:00Z")), "at the very second")
	require.Equal(t, []string{"10.0.0.0/23"}, cidrs(at("2027-03-31T23:59:59Z")), "through the day")
	late := at("2027-04-01T00:00:00Z")
	require.Equal(t, []string{"10.0.0.0/24"}, cidrs(late))
	require.Equal(t, "These destinations have expired and open nothing: day on 2027-03-31, instant on 2027-03-31T16:00:00Z", late.ExpiredText())
	require.Equal(t, "Expired: day opens nothing since 2027-04-01T00:00:00Z; remove it, or set a later date (allowedDestinations[1].expires)", late.Refusals(nil)[0].String())
	require.True(t, late.NextChange.IsZero())
}

// TestExpiredDestinationsStayClosed checks that a clock that goes back, or the slower clock of another agent, does not
// open what has been closed. The NetworkPolicy has the time of the last expiry.
func TestExpiredDestinationsStayClosed(t *testing.T) {
	configMap := tenantPolicy(`{"allowedDestinations": [
		{"name": "a", "cidr": "10.0.0.0/24", "expires": "2027-03-31"},
		{"name": "b", "cidr": "10.0.2.0/24", "expires": "2027-04-30"}]}`)
	expiry := time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC)
	inputs := func(now time.Time) Inputs { return Inputs{Options: Options{Family: IPv4}, Now: now} }
	open := Assess(configMap, nil, inputs(expiry.Add(-time.Second)))
	require.Equal(t, 2, CIDRCount(open.Desired[0].Spec))
	require.NotContains(t, open.Desired[0].Annotations, ExpiredAnnotation)
	require.Equal(t, expiry, open.NextChange)

	stored := func(a *Assessment) *Current {
		object := a.Desired[0].DeepCopy()
		object.Generation, _ = strconv.ParseInt(object.Annotations[GenerationAnnotation], 10, 64)
		return CurrentOf(object)
	}
	closed := Assess(configMap, stored(open), inputs(expiry))
	require.Equal(t, CauseExpiry, closed.Cause)
	require.Equal(t, 1, CIDRCount(closed.Desired[0].Spec))
	require.Equal(t, "2027-04-01T00:00:00Z", closed.Desired[0].Annotations[ExpiredAnnotation])

	for _, now := range []time.Time{expiry, expiry.Add(-time.Second), expiry.AddDate(-1, 0, 0)} {
		again := Assess(configMap, stored(closed), inputs(now))
		require.Nil(t, again.Desired, "no write")
		require.Equal(t, Applied, again.State)
	}
	extended := tenantPolicy(`{"allowedDestinations": [
		{"name": "a", "cidr": "10.0.0.0/24", "expires": "2027-06-30"},
		{"name": "b", "cidr": "10.0.2.0/24", "expires": "2027-04-30"}]}`)
	reopened := Assess(extended, stored(closed), inputs(expiry))
	require.Equal(t, CausePolicy, reopened.Cause)
	require.Equal(t, 2, CIDRCount(reopened.Desired[0].Spec))
	require.NotContains(t, reopened.Desired[0].Annotations, ExpiredAnnotation)
}

func TestPodsAreCutByGuardrails(t *testing.T) {
	const backend = `{"allowedDestinations": [{"name": "backend", "pods": {"app": "backend"}, "ports": [8080, 25]}, {"name": "metrics", "namespace": "monitoring", "ports": [9090]}]}`
	for _, test := range []struct {
		name, guardrails string
		ports            []string // of each rule
		refusals         []string
	}{
		{"an address that no endpoint can have", `{"denied": [{"name": "metadata", "cidr": "169.254.169.254/32"}]}`, []string{"TCP 25, TCP 8080", "TCP 9090"}, nil},
		{"a port", `{"denied": [{"name": "smtp", "cidr": "0.0.0.0/0", "ports": [25]}]}`, []string{"TCP 8080", "TCP 9090"}, []string{
			"Denied by guardrail smtp of platform document baseline: backend opens pods app=backend of the policy's namespace on TCP 25, and a Service may lead to any address; only the base or within of a platform document can open pods there (allowedDestinations[0])",
		}},
		{"a port, beside an address that no endpoint can have", `{"denied": [{"name": "metadata", "cidr": "169.254.169.254/32"}, {"name": "smtp", "cidr": "0.0.0.0/0", "ports": [25]}]}`, []string{"TCP 8080", "TCP 9090"}, []string{
			"Denied by guardrail smtp of platform document baseline: backend opens pods app=backend of the policy's namespace on TCP 25, and a Service may lead to any address; only the base or within of a platform document can open pods there (allowedDestinations[0])",
		}},
		{"addresses", `{"denied": [{"name": "corporate", "cidr": "10.0.0.0/8", "ports": [9090]}]}`, []string{"TCP 25, TCP 8080"}, []string{
			"Denied by guardrail corporate of platform document baseline: metrics opens every pod of namespace monitoring on TCP 9090, and a Service may lead to any address; only the base or within of a platform document can open pods there (allowedDestinations[1])",
		}},
		{"outside", `{"within": [{"name": "corporate", "cidr": "10.0.0.0/8"}]}`, nil, []string{
			"Outside of what platform document baseline permits (corporate): backend opens pods app=backend of the policy's namespace on TCP 25, TCP 8080, and a Service may lead to any address; only the base or within of a platform document can open pods there (allowedDestinations[0])",
			"Outside of what platform document baseline permits (corporate): metrics opens every pod of namespace monitoring on TCP 9090, and a Service may lead to any address; only the base or within of a platform document can open pods there (allowedDestinations[1])",
		}},
		{"everything within", `{"within": [{"name": "all", "cidr": "0.0.0.0/0", "ports": [8080, 9090]}]}`, []string{"TCP 8080", "TCP 9090"}, []string{
			"Outside of what platform document baseline permits (all): backend opens pods app=backend of the policy's namespace on TCP 25, and a Service may lead to any address; only the base or within of a platform document can open pods there (allowedDestinations[0])",
		}},
		{"pods within", `{"within": [{"name": "own", "pods": {}}, {"name": "metrics", "namespace": "monitoring", "ports": [9090]}]}`, []string{"TCP 25, TCP 8080", "TCP 9090"}, nil},
		{"other pods within", `{"within": [{"name": "own", "pods": {"app": "db"}}, {"name": "metrics", "pods": {"app": "x"}, "namespace": "monitoring"}]}`, nil, []string{
			"Outside of what platform document baseline permits (own, metrics): backend opens pods app=backend of the policy's namespace on TCP 25, TCP 8080, and a Service may lead to any address; only the base or within of a platform document can open pods there (allowedDestinations[0])",
			"Outside of what platform document baseline permits (own, metrics): metrics opens every pod of namespace monitoring on TCP 9090, and a Service may lead to any address; only the base or within of a platform document can open pods there (allowedDestinations[1])",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			documents := []PlatformDocument{platformDocument(t, "baseline", `"guardrails": `+test.guardrails)}
			in := Inputs{Options: Options{Family: IPv4, AllowDNS: true}, Guardrails: NewGuardrails(documents, nil, IPv4)}
			compiled := CompileConfigMap(tenantPolicy(backend), in)
			require.Empty(t, compiled.Problems)
			require.Equal(t, test.refusals, textsOf(compiled.Refusals(nil)))
			require.Equal(t, test.ports, portsOfPodRules(compiled.Spec()))
			require.True(t, isDNSRule(compiled.Spec().Egress[0]))
			in.Guardrails = nil
			uncut := CompileConfigMap(tenantPolicy(backend), in).Spec()
			guardrails := NewGuardrails(documents, nil, IPv4)
			require.Equal(t, test.refusals != nil, guardrails.Violates(uncut, IPv4))
			fromSpec, isCut := guardrails.cutSpec(uncut, in.Options)
			require.Equal(t, test.refusals != nil, isCut)
			require.Equal(t, compiled.Spec(), fromSpec)
		})
	}
}

func textsOf(problems policy.Problems) []string {
	var texts []string
	for _, p := range problems {
		texts = append(texts, p.String())
	}
	return texts
}

func portsOfPodRules(spec networkingv1.NetworkPolicySpec) []string {
	var ports []string
	for _, rule := range spec.Egress {
		if isDNSRule(rule) {
			continue
		}
		text := ""
		for _, name := range PortNames(rule.Ports) {
			if text += ", " + name; text[:2] == ", " && len(text) == len(name)+2 {
				text = name
			}
		}
		ports = append(ports, text)
	}
	return ports
}

func TestSharedLimitsCountOnlyPoliciesOfOnePod(t *testing.T) {
	spec := func(selector string, first int) networkingv1.NetworkPolicySpec {
		ports := ""
		for i := range 12 {
			ports += ", " + string(rune('0'+(first+2*i)/1000)) + string(rune('0'+(first+2*i)/100%10)) + string(rune('0'+(first+2*i)/10%10)) + string(rune('0'+(first+2*i)%10))
		}
		document := `{` + selector + `"allowedDestinations": [{"name": "a", "cidr": "10.0.0.0/24", "ports": [` + ports[2:] + `]}]}`
		compiled := CompileConfigMap(tenantPolicy(document), Inputs{Options: Options{Family: IPv4, MaxPortSlots: DefaultPortSlots}})
		require.Empty(t, compiled.Problems)
		return compiled.Spec()
	}
	options := Options{Family: IPv4, AllowDNS: true, MaxPortSlots: DefaultPortSlots}
	web, db, all := spec(`"podSelector": {"matchLabels": {"app": "web"}}, `, 1000), spec(`"podSelector": {"matchLabels": {"app": "db"}}, `, 2000), spec("", 3000)
	require.Nil(t, SharedLimitProblems(web, []networkingv1.NetworkPolicySpec{db}, options), "no pod has both")
	require.NotNil(t, SharedLimitProblems(web, []networkingv1.NetworkPolicySpec{all}, options))
	require.NotNil(t, SharedLimitProblems(all, []networkingv1.NetworkPolicySpec{web}, options))
}

func TestAPIServerAddresses(t *testing.T) {
	document := `{"allowedDestinations": [{"name": "api", "entity": "kube-apiserver"}]}`
	known := Inputs{Options: Options{Family: IPv4}, APIServer: []netip.AddrPort{
		netip.MustParseAddrPort("10.0.0.1:6443"), netip.MustParseAddrPort("172.20.0.1:443"), netip.MustParseAddrPort("[2001:db8::1]:443"),
	}}
	compiled := CompileConfigMap(tenantPolicy(document), known)
	require.Equal(t, []Count{{"api", 2}}, compiled.Counts)
	blocks := policytest.BlocksOf(compiled.Spec())
	require.Len(t, blocks, 2)
	require.True(t, policytest.Allows(blocks, netip.MustParseAddr("10.0.0.1"), policy.TCP, 6443))
	require.False(t, policytest.Allows(blocks, netip.MustParseAddr("10.0.0.1"), policy.TCP, 443))
	require.True(t, policytest.Allows(blocks, netip.MustParseAddr("172.20.0.1"), policy.TCP, 443))

	unknown := Inputs{Options: Options{Family: IPv4}}
	require.Equal(t, []string{"api"}, CompileConfigMap(tenantPolicy(document), unknown).Unresolved)
	current := CurrentOf(Assess(tenantPolicy(document), nil, known).Desired[0])
	waiting := Assess(tenantPolicy(document), current, unknown)
	require.Equal(t, RangesUnavailable, waiting.State)
	require.Nil(t, waiting.Desired, "the NetworkPolicy stays as it is")
	require.Equal(t, `The addresses of these destinations are not known yet: ["api"]; the NetworkPolicy stays as it is until they are known`, waiting.Message())
}

func TestMaySelectSamePod(t *testing.T) {
	document := func(selector string) *policy.Policy {
		parsed, problems := policy.Parse([]byte(`{"podSelector": ` + selector + `, "allowedDestinations": []}`))
		require.Empty(t, problems)
		p, problems := policy.Validate(parsed, policy.Names{})
		require.Empty(t, problems)
		return p
	}
	const in, notIn, exists, missing = `{"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}`,
		`{"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a", "b", "c"]}]}`,
		`{"matchExpressions": [{"key": "app", "operator": "Exists"}]}`, `{"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}`
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{`{}`, `{}`, true}, {`{}`, in, true},
		{`{"matchLabels": {"app": "a"}}`, `{"matchLabels": {"tier": "b"}}`, true},
		{`{"matchLabels": {"app": "a"}}`, `{"matchLabels": {"app": "b"}}`, false},
		{`{"matchLabels": {"app": "a"}}`, in, true}, {`{"matchLabels": {"app": "c"}}`, in, false},
		{`{"matchLabels": {"app": "a"}}`, notIn, false}, {in, notIn, false}, {notIn, exists, true}, {notIn, missing, true},
		{exists, missing, false}, {in, missing, false}, {in, exists, true}, {missing, missing, true},
	} {
		for _, pair := range [][2]string{{test.a, test.b}, {test.b, test.a}} {
			require.Equal(t, test.want, maySelectSamePod(*document(pair[0]).PodSelector, *document(pair[1]).PodSelector), "%s and %s", pair[0], pair[1])
		}
	}
}

// TestTransitionReplacesForOtherPods checks that a change of podSelector never gives new pods the old rules.
func TestTransitionReplacesForOtherPods(t *testing.T) {
	spec := func(app, cidr string) networkingv1.NetworkPolicySpec {
		compiled := CompileConfigMap(tenantPolicy(`{"podSelector": {"matchLabels": {"app": "`+app+`"}}, "allowedDestinations": [{"name": "a", "cidr": "`+cidr+`"}]}`), Inputs{Options: Options{Family: IPv4}})
		require.Empty(t, compiled.Problems)
		return compiled.Spec()
	}
	step, next := Transition(spec("web", "10.0.0.0/24"), spec("db", "10.9.0.0/24"), 0, Options{})
	require.Equal(t, Replace, step)
	require.Equal(t, spec("db", "10.9.0.0/24"), next)
	step, _ = Transition(spec("web", "10.0.0.0/24"), spec("web", "10.9.0.0/24"), 0, Options{})
	require.Equal(t, Widen, step)
}

// TestDenyAllKeepsPodSelector checks that an invalid policy, if its document can be read, closes only its own pods.
func TestDenyAllKeepsPodSelector(t *testing.T) {
	var ports []string
	for i := range 30 {
		ports = append(ports, strconv.Itoa(1+2*i))
	}
	tooMany := `{"podSelector": {"matchLabels": {"app": "web"}}, "allowedDestinations": [{"name": "a", "cidr": "10.0.0.0/24", "ports": [` + strings.Join(ports, ", ") + `]}]}`
	in := Inputs{Options: Options{Family: IPv4, MaxPortSlots: DefaultPortSlots}}
	denied := Assess(tenantPolicy(tooMany), nil, in)
	require.Equal(t, Invalid, denied.State)
	require.Equal(t, "web", denied.Desired[0].Spec.PodSelector.MatchLabels["app"])
	require.Empty(t, denied.Desired[0].Spec.Egress)
	unreadable := Assess(tenantPolicy(`{`), nil, in)
	require.Empty(t, unreadable.Desired[0].Spec.PodSelector.MatchLabels)
}

// TestPodPortsCountForEachCIDR checks that the ports of pods take slots of every CIDR, because a pod may have an address in
// any of them.
func TestPodPortsCountForEachCIDR(t *testing.T) {
	ports := func(first, count int) string {
		var list []string
		for i := range count {
			list = append(list, strconv.Itoa(first+2*i))
		}
		return "[" + strings.Join(list, ", ") + "]"
	}
	compile := func(ofCIDR, ofPods int) policy.Problems {
		document := `{"allowedDestinations": [{"name": "net", "cidr": "10.0.0.0/24", "ports": ` + ports(1, ofCIDR) + `}, {"name": "backend", "pods": {"app": "x"}, "ports": ` + ports(1001, ofPods) + `}]}`
		return CompileConfigMap(tenantPolicy(document), Inputs{Options: Options{Family: IPv4, AllowDNS: true, MaxPortSlots: DefaultPortSlots}}).Problems
	}
	require.Nil(t, compile(12, 10))
	require.Equal(t, []string{"Too many ports: 10.0.0.0/24 has 23 ports and port ranges, and DNS takes 2; AWS VPC CNI enforces at most 24 for a CIDR: merge or remove ports of net, backend (allowedDestinations)"}, textsOf(compile(12, 11)))
	require.Equal(t, []string{"Too many ports: a pod has 23 ports and port ranges, and DNS takes 2; AWS VPC CNI enforces at most 24 for a CIDR: merge or remove ports of backend (allowedDestinations)"}, textsOf(compile(1, 23)))
}
