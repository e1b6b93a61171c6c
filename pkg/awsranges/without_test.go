package awsranges

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/internal/prefixes"
)

// rowsTable returns a table of rows in the form "PREFIX SERVICE REGION".
func rowsTable(t *testing.T, token int, rows ...string) *Table {
	t.Helper()
	var list []string
	for _, row := range rows {
		fields := strings.Fields(row)
		list = append(list, fmt.Sprintf(`{"ip_prefix": %q, "service": %q, "region": %q}`, fields[0], fields[1], fields[2]))
	}
	return mustParse(t, fmt.Sprintf(`{"syncToken": "%d", "prefixes": [%s]}`, token, strings.Join(list, ", ")))
}

func TestLookupWithout(t *testing.T) {
	table := rowsTable(t, 1,
		"13.40.0.0/14 AMAZON eu-west-2", "13.40.0.0/14 EC2 eu-west-2", "13.43.48.0/23 AMAZON eu-west-2", // STS inside EC2
		"64.252.64.0/18 AMAZON GLOBAL", "64.252.65.0/24 EC2 GLOBAL", // EC2 inside AMAZON
		"52.0.0.0/16 AMAZON us-east-1", "52.0.0.0/16 S3 us-east-1", "52.0.1.0/24 AMAZON us-east-1", "52.0.1.0/24 EC2 us-east-1",
		"9.9.9.0/24 CORP us-east-1",
	)
	for _, test := range []struct {
		service, region, without string
		want                     []string
	}{
		{"AMAZON", "eu-west-2", "EC2", []string{"13.43.48.0/23"}},
		{"AMAZON", "GLOBAL", "EC2", []string{"64.252.64.0/24", "64.252.66.0/23", "64.252.68.0/22", "64.252.72.0/21", "64.252.80.0/20", "64.252.96.0/19"}},
		{"AMAZON", "us-east-1", "EC2", []string{"52.0.0.0/24", "52.0.2.0/23", "52.0.4.0/22", "52.0.8.0/21", "52.0.16.0/20", "52.0.32.0/19", "52.0.64.0/18", "52.0.128.0/17"}},
		{"AMAZON", "us-east-1", "S3", []string{"52.0.1.0/24"}},
		{"AMAZON", "us-east-1", "EC2,S3", nil},
		{"AMAZON", "us-east-1", "S3,EC2", nil},
		{"S3", "us-east-1", "AMAZON", nil},
		{"CORP", "", "EC2", []string{"9.9.9.0/24"}},
		{"AMAZON", "nowhere", "EC2", nil},
		{"NOTHING", "", "EC2", nil},
	} {
		for range 2 { // the second result is remembered
			got := table.LookupWithout(test.service, test.region, strings.Split(test.without, ","))
			require.Equal(t, test.want, stringsOf(got), "%s without %s in %s", test.service, test.without, test.region)
		}
	}
	require.Nil(t, (*Table)(nil).LookupWithout("AMAZON", "", []string{"EC2"}))
	all := prefixes.Aggregate(slices.Concat(table.LookupWithout("AMAZON", "eu-west-2", []string{"EC2"}), table.LookupWithout("AMAZON", "GLOBAL", []string{"EC2"}), table.LookupWithout("AMAZON", "us-east-1", []string{"EC2"})))
	require.Equal(t, all, table.LookupWithout("AMAZON", "", []string{"EC2"}))
}

func stringsOf(list []netip.Prefix) []string {
	var texts []string
	for _, prefix := range list {
		texts = append(texts, prefix.String())
	}
	return texts
}

// TestLookupWithoutHolds checks that an address that AWS moves to a left-out service closes after the hold, as an
// address that AWS removes does, and that a new address of a left-out service never opens.
func TestLookupWithoutHolds(t *testing.T) {
	const hold = 24 * time.Hour
	at := func(hours int) time.Time { return time.Unix(1_800_000_000, 0).Add(time.Duration(hours) * time.Hour) }
	lookup := func(table *Table) []string { return stringsOf(table.LookupWithout("AMAZON", "x", []string{"EC2"})) }
	rows := []string{"10.0.0.0/24 AMAZON x", "10.0.4.0/24 AMAZON x", "10.0.4.0/24 EC2 x"}
	first := applyHolds(nil, &rowsTable(t, 1, rows...).document, at(0), hold)
	require.Equal(t, []string{"10.0.0.0/24"}, lookup(first))

	moved := append(rows, "10.0.0.0/25 EC2 x", "10.0.8.0/24 AMAZON x", "10.0.8.0/24 EC2 x", "10.0.12.0/24 AMAZON x")
	second := applyHolds(first, &rowsTable(t, 2, moved...).document, at(10), hold)
	require.Equal(t, []string{"10.0.0.0/24", "10.0.12.0/24"}, lookup(second), "10.0.0.0/25 is held, and 10.0.8.0/24 never opens")
	require.Contains(t, second.Diff(first).ServiceRegions, ServiceRegion{Service: "EC2", Rows: true})

	restarted, err := Parse(plainJSON(t, second))
	require.NoError(t, err)
	require.Equal(t, lookup(second), lookup(restarted), "the hold survives a restart")
	require.Same(t, restarted, applyHolds(restarted, &rowsTable(t, 2, moved...).document, at(33), hold), "still held")

	after := applyHolds(restarted, &rowsTable(t, 2, moved...).document, at(34), hold)
	require.Equal(t, []string{"10.0.0.128/25", "10.0.12.0/24"}, lookup(after))
	change := after.Diff(restarted)
	require.ElementsMatch(t, []ServiceRegion{{Service: "EC2", Rows: true}, {Service: "EC2", Region: "x", Rows: true}, {Service: "AMAZON", Rows: true}, {Service: "AMAZON", Region: "x", Rows: true}},
		change.ServiceRegions, "the policies with without sync again, and no others")
	require.Same(t, after, applyHolds(after, &rowsTable(t, 2, moved...).document, at(35), hold))

	back := applyHolds(after, &rowsTable(t, 3, rows...).document, at(40), hold)
	require.Equal(t, []string{"10.0.0.0/24", "10.0.12.0/24"}, lookup(back), "an address that AWS takes from EC2 opens at once; a removed row of AMAZON is held")
	require.Equal(t, []string{"10.0.0.0/24"}, lookup(applyHolds(back, &rowsTable(t, 3, rows...).document, at(64), hold)))
}

// TestLookupWithoutMatchesNaiveReading compares LookupWithout with a reading of all rows for each address.
func TestLookupWithoutMatchesNaiveReading(t *testing.T) {
	random := rand.New(rand.NewPCG(21, 2))
	for range 500 {
		var rows []string
		for range 1 + random.IntN(12) {
			bits := 24 + random.IntN(9)
			prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(256))}), bits).Masked()
			rows = append(rows, fmt.Sprintf("%s %s %s", prefix, []string{"AMAZON", "AMAZON", "EC2", "S3"}[random.IntN(4)], []string{"x", "y"}[random.IntN(2)]))
		}
		table := rowsTable(t, 1, rows...)
		leftOut := [][]string{{"EC2"}, {"S3"}, {"EC2", "S3"}}[random.IntN(3)]
		for _, region := range []string{"", "x"} {
			got := table.LookupWithout("AMAZON", region, leftOut)
			require.Equal(t, prefixes.Aggregate(got), got)
			for i := range 256 {
				address := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
				best, isOpen := -1, false
				for _, row := range table.Rows() {
					isOwn, isOther := row.Service == "AMAZON" && (region == "" || row.Region == region), slices.Contains(leftOut, row.Service)
					if row.Prefix.Contains(address) && (isOwn || isOther) && row.Prefix.Bits() >= best {
						isOpen = !isOther && (row.Prefix.Bits() > best || isOpen)
						best = row.Prefix.Bits()
					}
				}
				isFound := slices.ContainsFunc(got, func(prefix netip.Prefix) bool { return prefix.Contains(address) })
				require.Equal(t, isOpen, isFound, "%s in region %q under %v without %v", address, region, rows, leftOut)
				regions := []string{region}
				if region == "" {
					regions = nil
				}
				row, isLeftOut := table.IsLeftOut(address, "AMAZON", regions, leftOut)
				require.Equal(t, isOpen, row.Prefix.IsValid() && !isLeftOut)
			}
		}
	}
}

// TestRealAmazonWithoutEC2 checks the numbers of AWS's document of 2026-08-22.
func TestRealAmazonWithoutEC2(t *testing.T) {
	table, err := Parse(readReal(t))
	require.NoError(t, err)
	count := func(list []netip.Prefix) (cidrs, addresses int) {
		for _, prefix := range list {
			if prefix.Addr().Is4() {
				cidrs++
				addresses += 1 << (32 - prefix.Bits())
			}
		}
		return cidrs, addresses
	}
	for _, test := range []struct {
		region           string
		without          []string
		cidrs, addresses int
	}{
		{"us-east-1", []string{"EC2"}, 343, 1_470_826}, {"eu-west-1", []string{"EC2"}, 165, 919_565}, {"", []string{"EC2"}, 1762, 22_151_447},
	} {
		cidrs, addresses := count(table.LookupWithout("AMAZON", test.region, test.without))
		require.Equal(t, []int{test.cidrs, test.addresses}, []int{cidrs, addresses}, test.region)
	}
	cidrs, addresses := count(table.Lookup("AMAZON", "us-east-1"))
	require.Equal(t, []int{509, 22_956_666}, []int{cidrs, addresses})
}

// TestWithoutsAreBounded checks that the remembered results do not grow with the keys that tenants choose.
func TestWithoutsAreBounded(t *testing.T) {
	w := &withouts{found: make(map[withoutKey][]netip.Prefix)}
	for i := range 3 * maxWithoutPrefixes / 1000 {
		w.put(withoutKey{leftOut: fmt.Sprint(i)}, make([]netip.Prefix, 1000))
		require.LessOrEqual(t, w.count, maxWithoutPrefixes)
		require.LessOrEqual(t, len(w.found)*1000, maxWithoutPrefixes)
	}
	found, ok := w.get(withoutKey{leftOut: fmt.Sprint(3*maxWithoutPrefixes/1000 - 1)})
	require.True(t, ok)
	require.Len(t, found, 1000)
}
