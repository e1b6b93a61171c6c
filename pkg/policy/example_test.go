package policy_test

import (
	"fmt"

	"egress-agent/pkg/policy"
)

// A policy document becomes a Policy in two steps. Parse checks that the document is JSON. Validate checks its fields.
func Example() {
	document, problems := policy.Parse([]byte(`{"allowedDestinations": [
		{"name": "files", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]},
		{"name": "database", "cidr": "10.1.0.0/24", "ports": [5432, {"port": 8000, "endPort": 8100}]}]}`))
	if problems != nil {
		fmt.Println(problems.Error())
		return
	}
	p, problems := policy.Validate(document, policy.Names{})
	if problems != nil {
		fmt.Println(problems.Error())
		return
	}
	fmt.Println("default:", p.DefaultAction)
	for _, destination := range p.Destinations {
		if destination.Service != "" {
			fmt.Println(destination.Name, destination.Service, destination.Regions, destination.Ports)
		} else {
			fmt.Println(destination.Name, destination.CIDR, destination.Ports)
		}
	}
	// Output:
	// default: deny
	// files s3 [us-east-1] [TCP 443]
	// database 10.1.0.0/24 [TCP 5432 TCP 8000-8100]
}

// For data that is not JSON, Parse returns one problem. Its message has the line and the column.
func ExampleParse() {
	document, problems := policy.Parse([]byte("{\n  \"allowedDestinations\": [],\n}"))
	fmt.Println(document == nil)
	fmt.Println(problems.Error())
	// Output:
	// true
	// Policy validation failed: Invalid JSON: invalid character '}' looking for beginning of object key string at line 3, column 1; delete the comma before } (policy.json)
}

// Validate returns all problems at once, in document order.
func ExampleValidate() {
	document, _ := policy.Parse([]byte(`{"allowedDestinations": [{"name": "database", "cidr": "10.1.0.5/24", "prots": [5432]}]}`))
	_, problems := policy.Validate(document, policy.Names{})
	for _, problem := range problems {
		fmt.Println(problem.Path + ": " + problem.Message)
	}
	// Output:
	// allowedDestinations[0].cidr: Invalid CIDR format: 10.1.0.5/24 has host bits set; did you mean 10.1.0.0/24?
	// allowedDestinations[0].prots: Unknown field: prots; did you mean "ports"?
}

// Only the caller knows which services and regions exist, so Validate asks it for each name.
func ExampleValidate_names() {
	checkName := func(service, region string) (message func() string) {
		if service == "s3" && region != "us-esat-1" {
			return nil
		}
		return func() string { return fmt.Sprintf("Invalid region: %s", region) }
	}
	document, _ := policy.Parse([]byte(`{"allowedDestinations": [{"name": "files", "awsService": "s3", "regions": ["us-esat-1"]}]}`))
	_, problems := policy.Validate(document, policy.Names{AWS: checkName})
	fmt.Println(problems.Error())
	// Output: Policy validation failed: Invalid region: us-esat-1 (allowedDestinations[0].regions[0])
}
