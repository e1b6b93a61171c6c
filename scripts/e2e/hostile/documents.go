// Package hostile attacks the two built programs, each within the limits of its own Pod, with what a tenant may store
// and what a Pod may send. This file and ranges.go are what its tests and benchhostile share.
package hostile

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Names of regions that AWS's document has, and the one that Ranges makes up.
var regions = []string{
	"us-east-1", "us-east-2", "us-west-1", "us-west-2", "eu-west-1", "eu-west-2", "eu-west-3", "eu-central-1", "eu-north-1",
	"ap-south-1", "ap-northeast-1", "ap-northeast-2", "ap-southeast-1", "ap-southeast-2", "ca-central-1", "sa-east-1",
}

// Policy returns a policy document of n destinations.
func Policy(n int, destination func(i int) string) string {
	var b strings.Builder
	b.WriteString(`{"allowedDestinations":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(destination(i))
	}
	b.WriteString(`]}`)
	return b.String()
}

// Amazon opens all of AWS everywhere, n times over.
func Amazon(n int) string {
	return Policy(n, func(i int) string { return fmt.Sprintf(`{"name":"a%d","awsService":"amazon","ports":[443]}`, i) })
}

// AmazonPorts opens all of AWS everywhere, n times over, each time for a port of its own, of which no two are beside each
// other. Those of another first, in steps of n, are others.
func AmazonPorts(n, first int) string {
	return Policy(n, func(i int) string {
		return fmt.Sprintf(`{"name":"a%d","awsService":"amazon","ports":[%d]}`, i, 1+2*(first+i)%65535)
	})
}

// Subset opens AWS in n sets of regions, of which no two are equal, for one port or, where ports is more than one, for
// so many in turn.
func Subsets(n, ports int) string {
	return Policy(n, func(i int) string {
		var chosen []string
		for bit, region := range regions {
			if (i+1)>>bit&1 == 1 {
				chosen = append(chosen, `"`+region+`"`)
			}
		}
		return fmt.Sprintf(`{"name":"r%d","awsService":"amazon","regions":[%s],"ports":[%d]}`, i, strings.Join(chosen, ","), 443+2*(i%ports))
	})
}

// RepeatedRegions opens AWS in one region that it names n times.
func RepeatedRegions(n int) string {
	return `{"allowedDestinations":[{"name":"r","awsService":"amazon","regions":[` +
		strings.TrimSuffix(strings.Repeat(`"us-east-1",`, n), ",") + `],"ports":[443]}]}`
}

// Empty has n destinations without a field.
func Empty(n int) string { return Policy(n, func(int) string { return "{}" }) }

// Ports opens one address for n ports, none beside another.
func Ports(n int) string {
	var b strings.Builder
	b.WriteString(`{"allowedDestinations":[{"name":"p","cidr":"10.0.0.0/8","ports":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprint(&b, 1+2*i%65535)
	}
	b.WriteString(`]}]}`)
	return b.String()
}

// CIDRs opens n addresses of which no two can be joined, from first on.
func CIDRs(n, first int) string {
	return Policy(n, func(i int) string {
		i += first
		return fmt.Sprintf(`{"name":"c%d","cidr":"10.%d.%d.%d/32","ports":[443]}`, i, i>>15&255, i>>7&255, i<<1&255)
	})
}

// NestedCIDRs opens n CIDRs in chains, each inside the one before it and for a port of its own.
func NestedCIDRs(n int) string {
	return Policy(n, func(i int) string {
		chain, bits := i/22, 11+i%22
		return fmt.Sprintf(`{"name":"n%d","cidr":"%d.%d.0.0/%d","ports":[%d]}`, i, 1+chain>>3, chain<<5&255, bits, 1000+2*(i%22))
	})
}

// UnknownFields has one destination with n fields that no destination has, each nearly one.
func UnknownFields(n int) string {
	return `{"allowedDestinations":[{` + list(n, func(i int) string { return fmt.Sprintf(`"prots%d":1`, i) }) + `}]}`
}

// UnknownRegions names n regions that AWS does not have, each nearly one.
func UnknownRegions(n int) string {
	return `{"allowedDestinations":[{"name":"r","awsService":"amazon","regions":[` +
		list(n, func(i int) string { return fmt.Sprintf(`"us-esat-%d"`, i) }) + `],"ports":[443]}]}`
}

// UnknownServices has n destinations, each with a service that AWS nearly has.
func UnknownServices(n int) string {
	return Policy(n, func(i int) string {
		return fmt.Sprintf(`{"name":"s%d","awsService":"route53_helthchecks_publishin_%d","ports":[443]}`, i, i)
	})
}

// Nested is lists in lists, depth deep.
func Nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

// Blank is a policy that opens nothing, and is padded with white space to a size in bytes.
func Blank(size int) string {
	const start, end = `{"allowedDestinations":[`, `]}`
	return start + strings.Repeat(" ", size-len(start)-len(end)) + end
}

// Small is an ordinary policy. Those of different i differ in one address.
func Small(i int) string {
	return fmt.Sprintf(`{"defaultAction":"deny","allowedDestinations":[{"name":"s3","awsService":"s3","regions":["us-east-1"],"ports":[443]},`+
		`{"name":"db","cidr":%q,"ports":[5432]}]}`, SmallCIDR(i))
}

// SmallCIDR is the address of Small(i).
func SmallCIDR(i int) string { return fmt.Sprintf("172.%d.%d.%d/32", 16+i>>16&15, i>>8&255, i&255) }

func list(n int, item func(i int) string) string {
	items := make([]string, n)
	for i := range items {
		items[i] = item(i)
	}
	return strings.Join(items, ",")
}

// Labelled is the metadata of an object that the webhook judges.
const Labelled = `"labels":{"egress-controller":"managed"}`

// Review is what an API server asks about a new policy.
func Review(policy string) string { return ReviewOf(policy, Labelled, "") }

// ReviewOf is a review whose object has other metadata, and whose request has further fields, each beginning with a
// comma.
func ReviewOf(policy, metadata, further string) string {
	text, err := json.Marshal(policy)
	if err != nil {
		panic(err) // a string encodes
	}
	return fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","kind":{"group":"","version":"v1","kind":"ConfigMap"},`+
		`"operation":"CREATE","namespace":"tenant","name":"egress","object":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"egress","namespace":"tenant",%s},`+
		`"data":{"policy.json":%s}}%s}}`, metadata, text, further)
}
