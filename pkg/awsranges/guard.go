package awsranges

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// The widest rows that are believed: AWS's own are no wider than /11 and /32 (2026).
const (
	widestIPv4 = 8
	widestIPv6 = 16
)

// keptPercent of each family's rows must still be there. In three years AWS's document never lost more
// than 6.2 % of them at once. One service may lose all it has: that is not guarded.
const keptPercent = 85

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

// sound returns an error that names the first thing that AWS's own document cannot hold: a sync token
// that is no number, a row wider than /8 (IPv4) or /16 (IPv6), or one in reserved space. Rows that were
// accepted before, which may be a nil table, have been looked at.
func sound(accepted *Table, d *document) error {
	if _, err := d.time(); err != nil {
		return err
	}
	rows := d.rows
	if accepted != nil {
		rows = missing(d.rows, accepted.rows)
	}
	for _, row := range rows {
		widest := widestIPv4
		if row.Prefix.Addr().Is6() {
			widest = widestIPv6
		}
		if row.Prefix.Bits() < widest {
			return fmt.Errorf("%s (%s, %s) is wider than /%d", row.Prefix, row.Service, row.Region, widest)
		}
		if i := slices.IndexFunc(reserved, row.Prefix.Overlaps); i >= 0 {
			return fmt.Errorf("%s (%s, %s) is in reserved space, %s", row.Prefix, row.Service, row.Region, reserved[i])
		}
	}
	return nil
}

// follows returns an error where a sound document does not look like a later publication of what was
// accepted before: its sync token is older, or it lacks more than 15 % of the IPv4 or of the IPv6
// rows. Rows that are only held are not counted. A nil accepted is followed by all.
func follows(accepted *Table, d *document) error {
	if accepted == nil {
		return nil
	}
	before, err := accepted.time()
	if err != nil {
		return err
	}
	now, err := d.time()
	if err != nil {
		return err
	}
	if now < before {
		return fmt.Errorf("syncToken %d is older than the accepted %d", now, before)
	}
	then := accepted.published()
	lost := missing(then, d.rows)
	return errors.Join(
		keeps("IPv4", countFamily(then, 32), countFamily(lost, 32)),
		keeps("IPv6", countFamily(then, 128), countFamily(lost, 128)))
}

func keeps(family string, rows, lost int) error {
	if kept := rows - lost; kept*100 < rows*keptPercent {
		return fmt.Errorf("it keeps %d of %d %s rows, less than %d %%", kept, rows, family, keptPercent)
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
