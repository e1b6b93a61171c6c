// Package hostile attacks the two built programs, each within the limits of its Pod. The attacks are policies that a
// tenant may store, and requests that a Pod may send. Command benchhostile uses this package, too.
package hostile

import (
	"encoding/json"
	"fmt"
	"strings"
)

// regions are names of regions in both AWS's document and the synthetic document.
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

// Amazon returns a policy with n equal destinations: AMAZON in every region.
func Amazon(n int) string {
	return Policy(n, func(i int) string { return fmt.Sprintf(`{"name":"a%d","awsService":"amazon","ports":[443]}`, i) })
}

// AmazonPorts returns a policy with n destinations: AMAZON in every region, each for another port. No two ports are
// adjacent. Two policies have no common port if their values of first differ by at least n.
func AmazonPorts(n, first int) string {
	return Policy(n, func(i int) string {
		return fmt.Sprintf(`{"name":"a%d","awsService":"amazon","ports":[%d]}`, i, 1+2*(first+i)%65535)
	})
}

// Subsets returns a policy with n destinations: AMAZON, each in another set of regions. Each destination has one port.
// The destinations use portCount different ports in turn.
func Subsets(n, portCount int) string {
	return Policy(n, func(i int) string {
		var chosen []string
		for bit, region := range regions {
			if (i+1)>>bit&1 == 1 {
				chosen = append(chosen, `"`+region+`"`)
			}
		}
		return fmt.Sprintf(`{"name":"r%d","awsService":"amazon","regions":[%s],"ports":[%d]}`,
			i, strings.Join(chosen, ","), 443+2*(i%portCount))
	})
}

// RepeatedRegions returns a policy that opens AMAZON in one region, and repeats the name of this region n times.
func RepeatedRegions(n int) string {
	return `{"allowedDestinations":[{"name":"r","awsService":"amazon","regions":[` +
		strings.TrimSuffix(strings.Repeat(`"us-east-1",`, n), ",") + `],"ports":[443]}]}`
}

// Empty returns a policy with n destinations that have no fields. The policy is invalid.
func Empty(n int) string { return Policy(n, func(int) string { return "{}" }) }

// Ports returns a policy that opens one CIDR for n ports. No two ports are adjacent.
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

// CIDRs returns a policy that opens n addresses, numbered from first on. No two addresses aggregate.
func CIDRs(n, first int) string {
	return Policy(n, func(i int) string {
		i += first
		return fmt.Sprintf(`{"name":"c%d","cidr":"10.%d.%d.%d/32","ports":[443]}`, i, i>>15&255, i>>7&255, i<<1&255)
	})
}

// NestedCIDRs returns a policy that opens n CIDRs in chains. Each CIDR of a chain is inside the previous CIDR, and has
// another port.
func NestedCIDRs(n int) string {
	return Policy(n, func(i int) string {
		chain, bits := i/22, 11+i%22
		return fmt.Sprintf(`{"name":"n%d","cidr":"%d.%d.0.0/%d","ports":[%d]}`, i, 1+chain>>3, chain<<5&255, bits, 1000+2*(i%22))
	})
}

// UnknownFields returns a policy with one destination and n unknown fields. Each of these is similar to a known field.
func UnknownFields(n int) string {
	return `{"allowedDestinations":[{` + list(n, func(i int) string { return fmt.Sprintf(`"prots%d":1`, i) }) + `}]}`
}

// UnknownRegions returns a policy with n unknown regions. Each of these is similar to a known region.
func UnknownRegions(n int) string {
	return `{"allowedDestinations":[{"name":"r","awsService":"amazon","regions":[` +
		list(n, func(i int) string { return fmt.Sprintf(`"us-esat-%d"`, i) }) + `],"ports":[443]}]}`
}

// UnknownServices returns a policy with n destinations. Each has an unknown service that is similar to a known service.
func UnknownServices(n int) string {
	return Policy(n, func(i int) string {
		return fmt.Sprintf(`{"name":"s%d","awsService":"route53_helthchecks_publishin_%d","ports":[443]}`, i, i)
	})
}

// Nested returns a JSON list in a list and so on, depth lists in all.
func Nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

// Blank returns a policy without destinations, filled with white space up to size bytes.
func Blank(size int) string {
	const start, end = `{"allowedDestinations":[`, `]}`
	return start + strings.Repeat(" ", size-len(start)-len(end)) + end
}

// Small returns an ordinary policy. Policies with different i differ in one address.
func Small(i int) string {
	return fmt.Sprintf(`{"defaultAction":"deny","allowedDestinations":[{"name":"s3","awsService":"s3","regions":["us-east-1"],"ports":[443]},`+
		`{"name":"db","cidr":%q,"ports":[5432]}]}`, SmallCIDR(i))
}

// SmallCIDR returns the CIDR of Small(i).
func SmallCIDR(i int) string { return fmt.Sprintf("172.%d.%d.%d/32", 16+i>>16&15, i>>8&255, i&255) }

func list(n int, item func(i int) string) string {
	items := make([]string, n)
	for i := range items {
		items[i] = item(i)
	}
	return strings.Join(items, ",")
}

// Labelled has the metadata of an object that the webhook reviews, as JSON fields.
const Labelled = `"labels":{"egress-controller":"managed"}`

// Review returns the AdmissionReview of a new policy, as JSON.
func Review(policy string) string { return ReviewOf(policy, Labelled, "") }

// ReviewOf returns the AdmissionReview of a new policy with this metadata and with requestFields, as JSON. metadata has
// JSON fields of the object's metadata. requestFields has further JSON fields of the request, each after a comma.
func ReviewOf(policy, metadata, requestFields string) string {
	text, err := json.Marshal(policy)
	if err != nil {
		panic(err) // a string always encodes
	}
	return fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","kind":{"group":"","version":"v1","kind":"ConfigMap"},`+
		`"operation":"CREATE","namespace":"tenant","name":"egress","object":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"egress","namespace":"tenant",%s},`+
		`"data":{"policy.json":%s}}%s}}`, metadata, text, requestFields)
}
