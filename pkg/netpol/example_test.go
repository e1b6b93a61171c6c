package netpol_test

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

func policyConfigMap(document string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "egress", Namespace: "tenant-a"},
		Data:       map[string]string{policy.Key: document},
	}
}

func exampleTable() *awsranges.Table {
	table, err := awsranges.Parse([]byte(`{"syncToken": "1700000000", "prefixes": [
		{"ip_prefix": "198.18.0.0/25", "service": "S3", "region": "us-east-1"},
		{"ip_prefix": "198.18.0.128/25", "service": "S3", "region": "us-east-1"}]}`))
	if err != nil {
		panic(err)
	}
	return table
}

// A policy ConfigMap and a table of ranges give the spec of a NetworkPolicy.
func ExampleCompileConfigMap() {
	configMap := policyConfigMap(`{"allowedDestinations": [
		{"name": "files", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]},
		{"name": "database", "cidr": "10.1.0.0/24", "ports": [5432]}]}`)
	compiled := netpol.CompileConfigMap(configMap, netpol.Inputs{
		Table:   exampleTable(),
		Options: netpol.Options{Family: netpol.IPv4, MaxPortSlots: 24},
	})
	if compiled.Problems != nil {
		fmt.Println(compiled.Problems.Error())
		return
	}
	for _, rule := range compiled.Spec().Egress {
		for _, peer := range rule.To {
			fmt.Println(peer.IPBlock.CIDR, netpol.PortNames(rule.Ports))
		}
	}
	for _, count := range compiled.Counts {
		fmt.Println(count.Name, count.CIDRs)
	}
	for _, warning := range compiled.Warnings {
		fmt.Println("Warning:", warning)
	}
	// Output:
	// 198.18.0.0/24 [TCP 443]
	// 10.1.0.0/24 [TCP 5432]
	// files 1
	// database 1
	// Warning: files opens S3, which also covers every AWS customer's buckets: 256 IPv4 addresses (allowedDestinations[0].awsService)
}

// An invalid policy has problems, and Spec returns DenyAll for it.
func ExampleCompileConfigMap_invalid() {
	configMap := policyConfigMap(`{"allowedDestinations": [{"name": "files", "awsService": "s4", "ports": [443]}]}`)
	compiled := netpol.CompileConfigMap(configMap, netpol.Inputs{Table: exampleTable(), Options: netpol.Options{Family: netpol.IPv4}})
	fmt.Println(compiled.Problems.Error())
	// Output: Policy validation failed: Invalid service: s4; did you mean s3? (allowedDestinations[0].awsService)
}
