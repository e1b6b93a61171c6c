package prefixes_test

import (
	"fmt"
	"net/netip"

	"egress-agent/pkg/internal/prefixes"
)

// set returns the set of TCP ports on a CIDR. No ports means every port.
func set(cidr string, ports ...uint16) prefixes.Set {
	builder := prefixes.NewBuilder(1)
	var ranges []prefixes.PortRange // no range means every port
	for _, port := range ports {
		ranges = append(ranges, prefixes.PortRange{Protocol: "TCP", First: port, Last: port})
	}
	builder.Add(builder.Ports(ranges), netip.MustParsePrefix(cidr))
	return builder.Set()
}

func print(s prefixes.Set) {
	blocks, err := s.Blocks()
	if err != nil {
		fmt.Println(err)
	}
	for block := range blocks.All() {
		fmt.Print(block.Prefix)
		if block.Ports.IsEveryPort() {
			fmt.Print(" every port")
		} else {
			for _, r := range block.Ports.Ranges() {
				fmt.Printf(" %s %d-%d", r.Protocol, r.First, r.Last)
			}
		}
		fmt.Println()
	}
}

func ExampleBuilder() {
	builder := prefixes.NewBuilder(3)
	https := builder.Ports([]prefixes.PortRange{{Protocol: "TCP", First: 443, Last: 443}})
	builder.Add(https, netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("10.0.1.0/24"))
	builder.Add(builder.Ports(nil), netip.MustParsePrefix("192.0.2.1/32"))
	print(builder.Set())
	// Output:
	// 10.0.0.0/23 TCP 443-443
	// 192.0.2.1/32 every port
}

func ExampleSet_Union() {
	print(set("10.0.0.0/24", 443).Union(set("10.0.1.0/24", 443)))
	// Output:
	// 10.0.0.0/23 TCP 443-443
}

func ExampleSet_Intersect() {
	policy, allowed := set("0.0.0.0/0", 443), set("10.0.0.0/8")
	print(policy.Intersect(allowed))
	// Output:
	// 10.0.0.0/8 TCP 443-443
}

func ExampleSet_Subtract() {
	policy, denied := set("10.0.0.0/22"), set("10.0.1.0/24", 25)
	print(policy.Subtract(denied))
	// Output:
	// 10.0.0.0/24 every port
	// 10.0.1.0/24 SCTP 1-65535 TCP 1-24 TCP 26-65535 UDP 1-65535
	// 10.0.2.0/23 every port
}

func ExampleBlocks_ByPorts() {
	blocks, _ := set("10.0.0.0/24", 443).Union(set("10.0.9.0/24", 443)).Union(set("10.0.5.0/24")).Blocks()
	for _, group := range blocks.ByPorts() {
		fmt.Println(group.Ports.IsEveryPort(), group.Prefixes)
	}
	// Output:
	// true [10.0.5.0/24]
	// false [10.0.0.0/24 10.0.9.0/24]
}

func ExampleBlocks_Slots() {
	blocks, _ := set("10.0.0.0/8", 443, 80).Union(set("10.1.0.0/16", 443, 5432)).Blocks()
	for prefix, slots := range blocks.Slots() {
		fmt.Println(prefix, slots)
	}
	// Output:
	// 10.0.0.0/8 2
	// 10.1.0.0/16 3
}

func ExampleAggregate() {
	fmt.Println(prefixes.Aggregate([]netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("10.0.0.0/23"), netip.MustParsePrefix("10.0.2.0/23"),
	}))
	// Output: [10.0.0.0/22]
}

func ExampleSubtract() {
	fmt.Println(prefixes.Subtract([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/30")}, []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}))
	// Output: [10.0.0.0/32 10.0.0.2/31]
}
