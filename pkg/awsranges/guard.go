package awsranges

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The widest rows that are believed: AWS's own are no wider than /11 and /32 (2026).
const (
	widestIPv4 = 10
	widestIPv6 = 24
)

// mostAhead is how far ahead of the clock a document may be published: clocks differ, not by days.
const mostAhead = 24 * time.Hour

// minKeptPercent of each family's rows must still be there. In three years AWS's document never lost more
// than 6.2 % of them at once. One service may lose all it has: that is not guarded.
const minKeptPercent = 85

// reserved is address space that nobody publishes services in: this network, private, shared, loopback,
// link-local, documentation, multicast and future use
// (https://www.iana.org/assignments/iana-ipv4-special-registry, and the same for IPv6).
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("224.0.0.0/3"),
	netip.MustParsePrefix("::/8"), // unspecified, loopback, IPv4-mapped and translated
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("3fff::/20"),
	netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("fec0::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// validateDocument returns an error that names the first thing that AWS's own document cannot hold: a sync token
// that is no number, a row wider than /10 (IPv4) or /24 (IPv6), or one in reserved space. Rows that were
// accepted before, which may be a nil table, have been looked at.
func validateDocument(accepted *Table, d *document) error {
	if _, err := d.time(); err != nil {
		return err
	}
	rows := d.rows
	if accepted != nil {
		rows = subtractRows(d.rows, accepted.rows)
	}
	for _, row := range rows {
		widest := widestIPv4
		if row.Prefix.Addr().Is6() {
			widest = widestIPv6
		}
		if row.Prefix.Bits() < widest {
			return fmt.Errorf("%s is wider than /%d", describe(row), widest)
		}
		if i := slices.IndexFunc(reserved, row.Prefix.Overlaps); i >= 0 {
			return fmt.Errorf("%s is in reserved space, %s", describe(row), reserved[i])
		}
	}
	return nil
}

// describe names a row in a message.
func describe(row Row) string {
	return fmt.Sprintf("%s (%s, %s)", row.Prefix, escaped(row.Service), escaped(row.Region))
}

// escaped shows the control characters of a document's text, which would otherwise act on a terminal.
func escaped(text string) string {
	quoted := strconv.Quote(text)
	return quoted[1 : len(quoted)-1]
}

// checkClock returns an error where a sound document is of a day that has not come. Were it accepted, all of
// AWS's own would be older.
func checkClock(d *document, now time.Time) error {
	published, err := d.time()
	if err != nil {
		return err
	}
	if isAhead(published, now) {
		return fmt.Errorf("syncToken %d, %s, is more than a day ahead of the clock, %s", published,
			time.Unix(published, 0).UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

func isAhead(published int64, now time.Time) bool {
	return published > now.Add(mostAhead).Unix()
}

// validateSuccessor returns an error where a sound document does not look like a later publication of what was
// accepted before: its sync token is older, it lacks more than 15 % of the IPv4 or of the IPv6
// rows, or it opens too many addresses. Rows that are only held are not counted. A nil accepted is followed
// by all. One whose own sync token has not come, as an earlier version took them, says nothing of age. open is
// what covered gives of accepted.
func validateSuccessor(accepted *Table, open []netip.Prefix, d *document, now time.Time) error {
	if accepted == nil {
		return nil
	}
	before, err := accepted.time()
	if err != nil {
		return err
	}
	published, err := d.time()
	if err != nil {
		return err
	}
	var reasons []string
	switch {
	case isAhead(before, now):
		before = published
	case published < before:
		reasons = append(reasons, fmt.Sprintf("syncToken %d is older than the accepted %d", published, before))
	}
	then := accepted.publishedRows()
	lost, added := subtractRows(then, d.rows), subtractRows(d.rows, then)
	for _, err := range []error{
		checkRowLoss("IPv4", countFamily(then, 32), countFamily(lost, 32)),
		checkRowLoss("IPv6", countFamily(then, 128), countFamily(lost, 128)),
		grows(open, added, published-before),
	} {
		if err != nil {
			reasons = append(reasons, err.Error())
		}
	}
	if reasons == nil {
		return nil
	}
	return errors.New(strings.Join(reasons, "; "))
}

func checkRowLoss(family string, rows, lost int) error {
	if kept := rows - lost; kept*100 < rows*minKeptPercent {
		return fmt.Errorf("it keeps %d of %d %s rows, less than %d %%", kept, rows, family, minKeptPercent)
	}
	return nil
}

// countFamily counts the rows whose addresses have so many bits.
func countFamily(rows []Row, bits int) int {
	count := 0
	for _, row := range rows {
		if row.Prefix.Addr().BitLen() == bits {
			count++
		}
	}
	return count
}

// time is the sync token as a number: the publication time in epoch seconds.
func (d *document) time() (int64, error) {
	seconds, err := strconv.ParseInt(d.syncToken, 10, 64)
	if err != nil || seconds < 0 {
		return 0, fmt.Errorf("syncToken %q is no time in epoch seconds", d.syncToken)
	}
	return seconds, nil
}
