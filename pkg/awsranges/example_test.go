package awsranges_test

import (
	"fmt"

	"egress-agent/pkg/awsranges"
)

// Parse reads AWS's ip-ranges document into a Table; Lookup then returns the prefixes of a service in a region.
func Example() {
	table, err := awsranges.Parse([]byte(`{"syncToken": "1700000000", "prefixes": [
		{"ip_prefix": "198.18.0.0/25", "service": "S3", "region": "us-east-1"},
		{"ip_prefix": "198.18.0.128/25", "service": "S3", "region": "us-east-1"},
		{"ip_prefix": "198.18.8.0/24", "service": "S3", "region": "us-west-2"}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("syncToken", table.SyncToken(), table.Services(), table.Regions("S3"))
	fmt.Println(table.Lookup("S3", "us-east-1"))
	fmt.Println(table.Lookup("S3", ""))
	// Output:
	// syncToken 1700000000 [S3] [us-east-1 us-west-2]
	// [198.18.0.0/24]
	// [198.18.0.0/24 198.18.8.0/24]
}

// An error names the first invalid row. Parse then returns no Table.
func ExampleParse() {
	table, err := awsranges.Parse([]byte(`{"syncToken": "1700000000", "prefixes": [
		{"ip_prefix": "198.18.0.0/33", "service": "S3", "region": "us-east-1"}]}`))
	fmt.Println(table == nil)
	fmt.Println(err)
	// Output:
	// true
	// prefixes[0]: netip.ParsePrefix("198.18.0.0/33"): prefix length out of range
}

// Lookup returns no prefixes for a region that the service lacks.
func ExampleTable_Lookup() {
	table, err := awsranges.Parse([]byte(`{"syncToken": "1700000000",
		"prefixes": [{"ip_prefix": "198.18.16.0/24", "service": "CLOUDFRONT", "region": "GLOBAL"}],
		"ipv6_prefixes": [{"ipv6_prefix": "2001:2:0:1000::/56", "service": "CLOUDFRONT", "region": "GLOBAL"}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(table.Lookup("CLOUDFRONT", "GLOBAL"))
	fmt.Println(table.Lookup("CLOUDFRONT", "us-east-1"))
	// Output:
	// [198.18.16.0/24 2001:2:0:1000::/56]
	// []
}

// Merge adds an organisation's own services to AWS's document.
func ExampleMerge() {
	aws, err := awsranges.Parse([]byte(`{"syncToken": "1700000000", "prefixes": [
		{"ip_prefix": "198.18.0.0/24", "service": "S3", "region": "us-east-1"}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	custom, err := awsranges.Parse([]byte(`{"prefixes": [
		{"ip_prefix": "10.20.0.0/23", "service": "BILLING", "region": "frankfurt"}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	table := awsranges.Merge(aws, custom)
	fmt.Println(table.SyncToken(), table.Services())
	for _, row := range table.Rows() {
		fmt.Println(row.Service, row.Region, row.Prefix, "custom:", row.Custom)
	}
	// Output:
	// 1700000000 [BILLING S3]
	// BILLING frankfurt 10.20.0.0/23 custom: true
	// S3 us-east-1 198.18.0.0/24 custom: false
}
