package awsranges

import (
	"slices"
	"strings"

	"egress-agent/pkg/internal/nearest"
)

// Canonical returns a service name as AWS publishes it: upper case, with _ for -.
func Canonical(service string) string {
	return strings.ReplaceAll(strings.ToUpper(service), "-", "_")
}

// Service is what the catalogue knows of a service that AWS publishes.
type Service struct {
	// Name is canonical.
	Name string
	// AlsoCovers says whose addresses the service's prefixes hold beside the service's own, to be
	// read after "also covers"; empty where they hold nobody else's.
	AlsoCovers string
	// InboundOnly says that AWS connects from these addresses, and no pod connects to them.
	InboundOnly bool
}

// The services of the document of 2026-08-22. The names let admission judge a policy before any
// table is loaded; a table may hold more.
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

// The regions of the same document.
var regions = []string{
	"GLOBAL", "af-south-1", "ap-east-1", "ap-east-2", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1",
	"ap-south-2", "ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5", "ap-southeast-6",
	"ap-southeast-7", "ca-central-1", "ca-west-1", "cn-north-1", "cn-northwest-1", "eu-central-1", "eu-central-2", "eu-north-1",
	"eu-south-1", "eu-south-2", "eu-west-1", "eu-west-2", "eu-west-3", "eusc-de-east-1", "il-central-1", "me-central-1",
	"me-south-1", "me-west-1", "mx-central-1", "sa-east-1", "sa-west-1", "us-east-1", "us-east-2", "us-gov-east-1", "us-gov-west-1",
	"us-south-1", "us-west-1", "us-west-2",
}

// LookupService returns what the catalogue knows of a service, by its canonical name.
func LookupService(service string) (Service, bool) {
	i, found := slices.BinarySearchFunc(services, service, func(s Service, name string) int { return strings.Compare(s.Name, name) })
	if !found {
		return Service{}, false
	}
	return services[i], true
}

// KnowsService says whether the catalogue or the table has the service, by its canonical name. The
// table may be nil.
func (t *Table) KnowsService(service string) bool {
	if _, ok := LookupService(service); ok {
		return true
	}
	return t != nil && t.regions[service] != nil
}

// KnowsRegion says whether the catalogue, or the table for any service, has the region. The table
// may be nil.
func (t *Table) KnowsRegion(region string) bool {
	if slices.Contains(regions, region) {
		return true
	}
	return t != nil && slices.Contains(t.regionNames, region)
}

// NearestService returns the known service that name most likely meant, in the lower case that
// policies use; empty when none is near. The table may be nil.
func (t *Table) NearestService(name string) string {
	name = Canonical(name)
	candidates := make([]string, 0, len(services))
	for _, s := range services {
		if !slices.Contains(wide, s.Name) {
			candidates = append(candidates, s.Name)
		} else if isSlip(name, s.Name) {
			return strings.ToLower(s.Name)
		}
	}
	if t != nil {
		for _, service := range t.Services() {
			if !slices.Contains(wide, service) && isPlain(service) {
				candidates = append(candidates, service)
			}
		}
	}
	return strings.ToLower(nearest.Name(name, candidates))
}
