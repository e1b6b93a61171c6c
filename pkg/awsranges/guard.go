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

// minBitsIPv4 and minBitsIPv6 are the shortest prefix lengths that the feed accepts. In AWS's document of 2026 the
// shortest prefix lengths are /11 and /32.
const (
	minBitsIPv4 = 10
	minBitsIPv6 = 24
)

// maxClockSkew is how far in the future a publication time may be, because clocks differ.
const maxClockSkew = 24 * time.Hour

// minKeptPercent is the percentage of the accepted rows that a document must still have, by family. In three years
// AWS's document never lost more than 6.2 % in one step. The check ignores services: one service may lose all its rows.
const minKeptPercent = 85

// reserved lists address space where no public service can be: "this network", private, shared, loopback, link-local,
// documentation, multicast and future use (https://www.iana.org/assignments/iana-ipv4-special-registry and
// https://www.iana.org/assignments/iana-ipv6-special-registry).
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

// validateDocument returns an error if d has content that AWS's document cannot have: a sync token that is not a
// number, a row wider than /10 (IPv4) or /24 (IPv6), or a row in reserved space. It skips the rows that acceptedTable
// has, because they have already passed this check. acceptedTable may be nil.
func validateDocument(acceptedTable *Table, d *document) error {
	if _, err := d.publishedAt(); err != nil {
		return err
	}
	rows := d.rows
	if acceptedTable != nil {
		rows = subtractRows(d.rows, acceptedTable.rows)
	}
	for _, row := range rows {
		minBits := minBitsIPv4
		if row.Prefix.Addr().Is6() {
			minBits = minBitsIPv6
		}
		if row.Prefix.Bits() < minBits {
			return fmt.Errorf("%s is wider than /%d", describeRow(row), minBits)
		}
		if i := slices.IndexFunc(reserved, row.Prefix.Overlaps); i >= 0 {
			return fmt.Errorf("%s is in reserved space, %s", describeRow(row), reserved[i])
		}
	}
	return nil
}

// describeRow formats a row for a message: PREFIX (SERVICE, REGION).
func describeRow(row Row) string {
	return fmt.Sprintf("%s (%s, %s)", row.Prefix, escape(row.Service), escape(row.Region))
}

// escape replaces control characters in a document's text. A terminal would otherwise obey them.
func escape(text string) string {
	quoted := strconv.Quote(text)
	return quoted[1 : len(quoted)-1]
}

// checkClock returns an error if the publication time of d is in the future. If the feed accepted such a
// document, it would refuse AWS's later documents as older.
func checkClock(d *document, now time.Time) error {
	publishedAt, err := d.publishedAt()
	if err != nil {
		return err
	}
	if isTooFarAhead(publishedAt, now) {
		return fmt.Errorf("syncToken %d, %s, is more than a day ahead of the clock, %s", publishedAt,
			time.Unix(publishedAt, 0).UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// isTooFarAhead reports whether publishedAt, in epoch seconds, is more than maxClockSkew after now.
func isTooFarAhead(publishedAt int64, now time.Time) bool {
	return publishedAt > now.Add(maxClockSkew).Unix()
}

// validateSuccessor returns an error if d is not a plausible successor of the accepted document. The sync token of d
// must not be older. d must have 85 % of the accepted IPv4 rows and 85 % of the accepted IPv6 rows. It must not open
// too many addresses. d must have passed validateDocument. covered is coveredPrefixes(acceptedTable).
//
// Held rows do not count as accepted rows. If acceptedTable is nil, validateSuccessor returns no error. An earlier
// version of this program accepted documents from the future. If acceptedTable is such a document, validateSuccessor
// does not compare the ages.
func validateSuccessor(acceptedTable *Table, covered []netip.Prefix, d *document, now time.Time) error {
	if acceptedTable == nil {
		return nil
	}
	acceptedAt, err := acceptedTable.publishedAt()
	if err != nil {
		return err
	}
	publishedAt, err := d.publishedAt()
	if err != nil {
		return err
	}
	var reasons []string
	switch {
	case isTooFarAhead(acceptedAt, now):
		acceptedAt = publishedAt
	case publishedAt < acceptedAt:
		reasons = append(reasons, fmt.Sprintf("syncToken %d is older than the accepted %d", publishedAt, acceptedAt))
	}
	acceptedRows := acceptedTable.publishedRows()
	missingRows, addedRows := subtractRows(acceptedRows, d.rows), subtractRows(d.rows, acceptedRows)
	for _, err := range []error{
		checkRowLoss("IPv4", countFamily(acceptedRows, 32), countFamily(missingRows, 32)),
		checkRowLoss("IPv6", countFamily(acceptedRows, 128), countFamily(missingRows, 128)),
		checkGrowth(covered, addedRows, publishedAt-acceptedAt),
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

// checkRowLoss returns an error if a document lacks too many of the accepted rows of a family. missingCount is the
// number of accepted rows that the document lacks.
func checkRowLoss(family string, acceptedCount, missingCount int) error {
	if keptCount := acceptedCount - missingCount; keptCount*100 < acceptedCount*minKeptPercent {
		return fmt.Errorf("the document has only %d of the accepted %d %s rows; the minimum is %d %%", keptCount, acceptedCount, family, minKeptPercent)
	}
	return nil
}

// countFamily returns the number of rows of one family. bits identifies the family: 32 or 128.
func countFamily(rows []Row, bits int) int {
	count := 0
	for _, row := range rows {
		if row.Prefix.Addr().BitLen() == bits {
			count++
		}
	}
	return count
}

// publishedAt returns the sync token as a number: the publication time in epoch seconds.
func (d *document) publishedAt() (int64, error) {
	seconds, err := strconv.ParseInt(d.syncToken, 10, 64)
	if err != nil || seconds < 0 {
		return 0, fmt.Errorf("syncToken %q is not a time in epoch seconds", d.syncToken)
	}
	return seconds, nil
}
