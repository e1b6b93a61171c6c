package awsranges

import (
	"slices"
	"strings"

	"egress-agent/pkg/internal/nearest"
)

// Canonical returns the name of a service in the spelling of AWS's ranges document: upper case, with _ instead
// of -.
func Canonical(service string) string {
	return strings.ReplaceAll(strings.ToUpper(service), "-", "_")
}

// Service is the catalogue's entry for a service in AWS's ranges document.
type Service struct {
	// Name is the canonical name.
	Name string
	// AlsoCovers says which other addresses the service's prefixes contain, such as the addresses of every AWS
	// customer's instances. Messages print it after "also covers". It is empty if the prefixes contain only the
	// service's own addresses.
	AlsoCovers string
	// InboundOnly reports whether AWS uses these addresses only to open connections. No pod connects to them.
	InboundOnly bool
}

// services lists the services of AWS's document of 2026-08-22, sorted by name. With this list, admission can check
// names before it has a table. A table may have more services.
var services = []Service{
	{Name: "AMAZON", AlsoCovers: "every AWS service, and every AWS customer's instances and buckets"},
	{Name: "AMAZON_APPFLOW"},
	{Name: "AMAZON_CONNECT"},
	{Name: "API_GATEWAY", InboundOnly: true},
	{Name: "AURORA_DSQL", AlsoCovers: "every AWS customer's clusters"},
	{Name: "CHIME_MEETINGS"},
	{Name: "CHIME_VOICECONNECTOR"},
	{Name: "CLOUD9"},
	{Name: "CLOUDFRONT", AlsoCovers: "every AWS customer's distributions"},
	{Name: "CLOUDFRONT_ORIGIN_FACING", InboundOnly: true},
	{Name: "CODEBUILD"},
	{Name: "DYNAMODB", AlsoCovers: "every AWS customer's tables"},
	{Name: "EBS"},
	{Name: "EC2", AlsoCovers: "every AWS customer's instances"},
	{Name: "EC2_INSTANCE_CONNECT"},
	{Name: "EFS"},
	{Name: "GLOBALACCELERATOR", AlsoCovers: "every AWS customer's accelerators"},
	{Name: "IOT_CORE"},
	{Name: "IVS_LOW_LATENCY"},
	{Name: "IVS_REALTIME"},
	{Name: "KINESIS_VIDEO_STREAMS"},
	{Name: "MEDIA_PACKAGE_V2"},
	{Name: "ROUTE53"},
	{Name: "ROUTE53_HEALTHCHECKS", InboundOnly: true},
	{Name: "ROUTE53_HEALTHCHECKS_PUBLISHING"},
	{Name: "ROUTE53_RESOLVER"},
	{Name: "S3", AlsoCovers: "every AWS customer's buckets"},
	{Name: "WORKSPACES_GATEWAYS"},
}

// Customers are addresses of AWS's customers that AMAZON has through another service.
type Customers struct {
	Service string // its canonical name
	Content string // what the customers have there, such as instances
}

// customers lists the services whose rows AMAZON also has, and whose addresses any customer of AWS may use.
var customers = []Customers{
	{"EC2", "instances"}, {"S3", "buckets"}, {"CLOUDFRONT", "distributions"}, {"DYNAMODB", "tables"}, {"GLOBALACCELERATOR", "accelerators"},
}

// CustomersOf returns the addresses of customers that AMAZON has without the services leftOut, by canonical names. It
// returns nil if there are none.
func CustomersOf(leftOut []string) []Customers {
	var remaining []Customers
	for _, c := range customers {
		if !slices.Contains(leftOut, c.Service) {
			remaining = append(remaining, c)
		}
	}
	return remaining
}

// regions lists the regions of the same document.
var regions = []string{
	"GLOBAL", "af-south-1", "ap-east-1", "ap-east-2", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1",
	"ap-south-2", "ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5", "ap-southeast-6",
	"ap-southeast-7", "ca-central-1", "ca-west-1", "cn-north-1", "cn-northwest-1", "eu-central-1", "eu-central-2", "eu-north-1",
	"eu-south-1", "eu-south-2", "eu-west-1", "eu-west-2", "eu-west-3", "eusc-de-east-1", "il-central-1", "me-central-1",
	"me-south-1", "me-west-1", "mx-central-1", "sa-east-1", "sa-west-1", "us-east-1", "us-east-2", "us-gov-east-1", "us-gov-west-1",
	"us-south-1", "us-west-1", "us-west-2",
}

// LookupService returns the catalogue's entry for a service, by canonical name. ok is false if the catalogue
// lacks the service.
func LookupService(service string) (entry Service, ok bool) {
	i, found := slices.BinarySearchFunc(services, service, func(s Service, name string) int { return strings.Compare(s.Name, name) })
	if !found {
		return Service{}, false
	}
	return services[i], true
}

// KnowsService reports whether the catalogue or the table has the service, by canonical name. The table may be
// nil.
func (t *Table) KnowsService(service string) bool {
	if _, ok := LookupService(service); ok {
		return true
	}
	return t != nil && t.regions[service] != nil
}

// KnowsRegion reports whether the catalogue or any service of the table has the region. The table may be nil.
func (t *Table) KnowsRegion(region string) bool {
	if slices.Contains(regions, region) {
		return true
	}
	return t != nil && slices.Contains(t.regionNames, region)
}

// NearestService returns the known service whose name is closest to name. The result is in lower case, as in policies.
// It is "" if no service is close. The table may be nil.
func (t *Table) NearestService(name string) string {
	name = Canonical(name)
	candidates := make([]string, 0, len(services))
	for _, s := range services {
		if !slices.Contains(wideServices, s.Name) {
			candidates = append(candidates, s.Name)
		} else if isTypo(name, s.Name) {
			return strings.ToLower(s.Name)
		}
	}
	if t != nil {
		for _, service := range t.Services() {
			if !slices.Contains(wideServices, service) && isPrintable(service) {
				candidates = append(candidates, service)
			}
		}
	}
	return strings.ToLower(nearest.Name(name, candidates))
}
