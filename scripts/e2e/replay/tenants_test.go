package replay

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// portRange is a port, or a range of ports, of a destination.
type portRange struct {
	First int32 `json:"port"`
	Last  int32 `json:"endPort,omitempty"`
}

// destination is an entry of a policy or of a guardrail.
type destination struct {
	Name    string      `json:"name"`
	Service string      `json:"awsService,omitempty"`
	Regions []string    `json:"regions,omitempty"`
	CIDR    string      `json:"cidr,omitempty"`
	Except  []string    `json:"except,omitempty"`
	Ports   []portRange `json:"ports,omitempty"`
}

// addresses returns what an entry names.
func (d destination) addresses(p *publishedRanges) spans {
	if d.CIDR != "" {
		open := spans{spanOf(netip.MustParsePrefix(d.CIDR))}
		for _, except := range d.Except {
			open = open.subtract(spans{spanOf(netip.MustParsePrefix(except))})
		}
		return open
	}
	service := strings.ToUpper(d.Service)
	var found []span
	for _, region := range d.Regions {
		found = append(found, p.open[serviceRegion{service, region}]...)
	}
	if d.Regions == nil {
		for key, open := range p.open {
			if key.service == service {
				found = append(found, open...)
			}
		}
	}
	return join(found)
}

func (d destination) has(port int32) bool {
	for _, r := range d.Ports {
		if r.First <= port && port <= max(r.First, r.Last) {
			return true
		}
	}
	return d.Ports == nil
}

// openingOf returns what destinations name together.
func openingOf(destinations []destination, p *publishedRanges) opening {
	found := make([]spans, len(destinations))
	for i, d := range destinations {
		found[i] = d.addresses(p)
	}
	open := make(opening, len(points))
	for i, port := range points {
		var list []span
		for n, d := range destinations {
			if d.has(port) {
				list = append(list, found[n]...)
			}
		}
		open[i] = join(list)
	}
	return open
}

// guardrails are the guardrails of a platform document. Tier is the label of the namespaces that it governs.
type guardrails struct {
	Denied []destination `json:"denied,omitempty"`
	Within []destination `json:"within,omitempty"`
}

// documents are the platform documents, by the value of the label tier. Half of the namespaces have one of these tiers.
var documents = map[string]guardrails{
	"metadata": {Denied: []destination{
		{Name: "metadata", CIDR: "169.254.169.254/32"},
		{Name: "smtp", CIDR: "0.0.0.0/0", Ports: []portRange{{First: 25}}},
	}},
	"europe": {
		Within: []destination{
			{Name: "aws", Service: "amazon", Regions: []string{"eu-west-1", "eu-central-1", "GLOBAL"}},
			{Name: "corporate", CIDR: "10.0.0.0/8"},
		},
		Denied: []destination{{Name: "office", CIDR: "10.66.0.0/16"}},
	},
	"no-instances": {Denied: []destination{{Name: "instances", Service: "ec2", Ports: []portRange{{First: 80}, {First: 9000, Last: 9050}}}}},
}

func platformDocument(tier string, g guardrails) string {
	data, err := json.Marshal(map[string]any{
		"namespaces": map[string]any{"matchLabels": map[string]string{"tier": tier}},
		"guardrails": g,
	})
	if err != nil {
		panic(err)
	}
	return string(data)
}

// cut returns the part of open that g permits.
func (g guardrails) cut(open opening, p *publishedRanges) opening {
	denied, within := openingOf(g.Denied, p), openingOf(g.Within, p)
	permitted := make(opening, len(points))
	for i := range points {
		permitted[i] = open[i].subtract(denied[i])
		if g.Within != nil {
			permitted[i] = permitted[i].intersect(within[i])
		}
	}
	return permitted
}

var (
	regions = []string{"us-east-1", "us-east-2", "us-west-2", "eu-west-1", "eu-central-1", "eu-west-2", "ap-southeast-1", "ap-northeast-1"}
	ports   = [][]portRange{{{First: 443}}, {{First: 443}}, {{First: 80}, {First: 443}}, {{First: 5432}}, {{First: 9000, Last: 9100}}, nil}
)

// newDestinations returns the entries of a policy: one to three.
func newDestinations(random *rand.Rand) []destination {
	list := make([]destination, 1+random.IntN(3))
	for i := range list {
		d := destination{Name: fmt.Sprintf("entry-%d", i), Ports: ports[random.IntN(len(ports))]}
		region := regions[random.IntN(len(regions))]
		switch n := random.IntN(100); {
		case n < 30:
			d.Service, d.Regions = "s3", []string{region}
		case n < 40:
			d.Service, d.Regions = "dynamodb", []string{region}
		case n < 50:
			d.Service, d.Regions = "ec2", []string{region}
		case n < 65:
			d.Service, d.Regions = "amazon", []string{region}
		case n < 70:
			d.Service, d.Regions = "cloudfront", []string{"GLOBAL"}
		case n < 73:
			d.Service = "ec2_instance_connect" // in every region
		case n < 76:
			d.CIDR, d.Except = "0.0.0.0/0", []string{"10.0.0.0/8", "169.254.0.0/16"}
		case n < 78:
			d.CIDR = "0.0.0.0/0"
		default:
			d.CIDR = fmt.Sprintf("10.%d.%d.0/24", 60+random.IntN(10), random.IntN(256))
		}
		list[i] = d
	}
	return list
}

// openingOfSpec returns what a NetworkPolicy opens by address. It leaves out peers that are Pods: the rule for DNS.
func openingOfSpec(spec networkingv1.NetworkPolicySpec) opening {
	lists := make([][]span, len(points))
	for _, rule := range spec.Egress {
		var found []span
		for _, peer := range rule.To {
			if peer.IPBlock != nil {
				found = append(found, spanOf(netip.MustParsePrefix(peer.IPBlock.CIDR)))
			}
		}
		if len(rule.To) == 0 {
			found = everything
		}
		for i, port := range points {
			if opens(rule.Ports, port) {
				lists[i] = append(lists[i], found...)
			}
		}
	}
	open := make(opening, len(points))
	for i := range points {
		open[i] = join(lists[i])
	}
	return open
}

func opens(ports []networkingv1.NetworkPolicyPort, port int32) bool {
	for _, p := range ports {
		if p.Protocol != nil && *p.Protocol != corev1.ProtocolTCP {
			continue
		}
		if p.Port == nil || p.Port.IntVal == port || p.EndPort != nil && p.Port.IntVal <= port && port <= *p.EndPort {
			return true
		}
	}
	return len(ports) == 0
}
