package hostile

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// The number of AMAZON's rows in AWS's document of 2026-08-22, for each family.
const (
	rowsIPv4 = 6084
	rowsIPv6 = 2901
)

// Ranges returns the file of AWS's document in the folder IP_RANGES_DATA. If this variable is not set, Ranges writes a
// synthetic document of the same size to dir, and returns its file.
func Ranges(dir string) (string, error) {
	if folder := os.Getenv("IP_RANGES_DATA"); folder != "" {
		file := filepath.Join(folder, "ip-ranges.json")
		_, err := os.Stat(file)
		return file, err
	}
	file := filepath.Join(dir, "ip-ranges.json")
	return file, os.WriteFile(file, syntheticDocument(), 0o600)
}

// syntheticDocument returns a document whose prefixes do not aggregate. Each prefix has a row of AMAZON. A third of the
// prefixes also has a row of EC2, and a tenth a row of S3.
func syntheticDocument() []byte {
	type row map[string]string
	add := func(rows []row, i int, field, prefix string) []row {
		services := []string{"AMAZON"}
		if i%3 == 0 {
			services = append(services, "EC2")
		}
		if i%10 == 0 {
			services = append(services, "S3")
		}
		for _, service := range services {
			region := regions[i%len(regions)]
			rows = append(rows, row{field: prefix, "region": region, "service": service, "network_border_group": region})
		}
		return rows
	}
	var ipv4, ipv6 []row
	for i := range rowsIPv4 {
		ipv4 = add(ipv4, i, "ip_prefix", fmt.Sprintf("%d.%d.%d.0/24", 3+i/32768, i>>7&255, i<<1&255))
	}
	for i := range rowsIPv6 {
		ipv6 = add(ipv6, i, "ipv6_prefix", fmt.Sprintf("2600:%x::/40", 0x1000+2*i))
	}
	const published = 1_700_000_000
	data, err := json.Marshal(map[string]any{
		"syncToken": strconv.Itoa(published), "createDate": "2023-11-14-22-13-20", "prefixes": ipv4, "ipv6_prefixes": ipv6,
	})
	if err != nil {
		panic(err) // strings and lists always encode
	}
	return data
}
