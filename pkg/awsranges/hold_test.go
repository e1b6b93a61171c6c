package awsranges

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestApplyHoldsKeepsRemovedRows(t *testing.T) {
	const hold = 24 * time.Hour
	start := time.Unix(1_700_000_000, 0)
	at := func(hours int) time.Time { return start.Add(time.Duration(hours) * time.Hour) }
	lookup := func(table *Table) []string {
		var found []string
		for _, prefix := range table.Lookup("S3", "us-east-1") {
			found = append(found, prefix.String())
		}
		return found
	}
	first := applyHolds(nil, &mustParse(t, documentWith(1, 0, 2, 4)).document, at(0), hold)
	require.Equal(t, []string{"198.18.0.0/24", "198.18.2.0/24", "198.18.4.0/24"}, lookup(first))
	require.Nil(t, first.Held())
	require.Same(t, first, applyHolds(first, &mustParse(t, documentWith(1, 0, 2, 4)).document, at(1), hold), "nothing changed")

	removed := applyHolds(first, &mustParse(t, documentWith(2, 0, 6)).document, at(2), hold)
	require.Equal(t, []string{"198.18.0.0/24", "198.18.2.0/24", "198.18.4.0/24", "198.18.6.0/24"}, lookup(removed), "additions apply at once, removed rows are held")
	require.Len(t, removed.Held(), 2)
	require.Equal(t, at(2).Unix(), removed.Held()[0].Removed)
	require.Equal(t, Change{ServiceRegions: nil, NamesChanged: false, Added: 1, Removed: 2}, func() Change {
		c := removed.Diff(first)
		require.ElementsMatch(t, []ServiceRegion{{Service: "S3", Region: "us-east-1"}, {Service: "S3"}}, withoutRows(c.ServiceRegions))
		c.ServiceRegions = nil
		return c
	}())
	require.Same(t, removed, applyHolds(removed, &mustParse(t, documentWith(2, 0, 6)).document, at(25), hold), "still held")

	restarted, err := Parse(plainJSON(t, removed))
	require.NoError(t, err)
	require.Equal(t, removed, restarted, "holds survive a restart")

	back := applyHolds(restarted, &mustParse(t, documentWith(3, 0, 4, 6)).document, at(20), hold)
	require.Equal(t, lookup(removed), lookup(back), "a held row returns: the lookup is the same")
	require.Len(t, back.Held(), 1)
	require.Empty(t, withoutRows(back.Diff(removed).ServiceRegions))

	dropped := applyHolds(back, &back.document, at(26), hold)
	require.Equal(t, []string{"198.18.0.0/24", "198.18.4.0/24", "198.18.6.0/24"}, lookup(dropped))
	require.Nil(t, dropped.Held())
	require.Equal(t, "3", dropped.SyncToken())

	gone := applyHolds(dropped, &mustParse(t, documentWith(4, 0, 6)).document, at(30), hold)
	require.Equal(t, at(30).Unix(), gone.Held()[0].Removed, "a row that returned is held again")
	early := applyHolds(gone, &gone.document, at(-30), hold)
	require.Equal(t, at(-30).Unix(), early.Held()[0].Removed, "a clock that goes back does not extend the hold")
	require.Nil(t, applyHolds(first, &mustParse(t, documentWith(2, 0)).document, at(1), 0).Held(), "no hold")
}

// withoutRows returns the keys of addresses.
func withoutRows(keys []ServiceRegion) []ServiceRegion {
	return slices.DeleteFunc(slices.Clone(keys), func(key ServiceRegion) bool { return key.Rows })
}

func TestDiff(t *testing.T) {
	document := func(rows ...string) *Table {
		return mustParse(t, `{"syncToken": "1", "prefixes": [`+strings.Join(rows, ", ")+`]}`)
	}
	row := func(prefix, service, region string) string {
		return fmt.Sprintf(`{"ip_prefix": %q, "service": %q, "region": %q}`, prefix, service, region)
	}
	s3, ec2 := row("3.0.0.0/24", "S3", "us-east-1"), row("3.1.0.0/24", "EC2", "us-east-1")
	previous := document(s3, ec2)
	for _, test := range []struct {
		name           string
		table          *Table
		serviceRegions []ServiceRegion
		namesChanged   bool
	}{
		{"no change", document(ec2, s3, s3), nil, false},
		{"other rows, same prefixes", document(ec2, s3, row("3.0.0.0/25", "S3", "us-east-1")), nil, false},
		{"a changed prefix", document(ec2, row("3.2.0.0/24", "S3", "us-east-1")), []ServiceRegion{{Service: "S3", Region: "us-east-1"}, {Service: "S3"}}, false},
		{"a prefix in another region", document(s3, ec2, row("3.0.0.0/24", "S3", "us-west-2")), []ServiceRegion{{Service: "S3", Region: "us-west-2"}}, true},
		{"a removed service", document(s3), []ServiceRegion{{Service: "EC2", Region: "us-east-1"}, {Service: "EC2"}}, true},
		{"a removed region", document(row("3.0.0.0/24", "S3", "x"), row("3.1.0.0/24", "EC2", "x")),
			[]ServiceRegion{{Service: "S3", Region: "us-east-1"}, {Service: "S3", Region: "x"}, {Service: "EC2", Region: "us-east-1"}, {Service: "EC2", Region: "x"}}, true},
	} {
		c := test.table.Diff(previous)
		require.ElementsMatch(t, test.serviceRegions, withoutRows(c.ServiceRegions), test.name)
		require.Equal(t, test.name == "no change", len(c.ServiceRegions) == 0, test.name)
		require.Equal(t, test.namesChanged, c.NamesChanged, test.name)
	}
	c := previous.Diff(nil)
	require.Len(t, withoutRows(c.ServiceRegions), 4)
	require.Equal(t, 2, c.Added)
}
