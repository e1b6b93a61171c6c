package flows

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"egress-agent/pkg/policy"
)

// names are the names of the fields in a shape of the node agent's records, in their order.
type names struct{ source, sourcePort, destination, port, protocol, verdict, direction string }

// The two shapes (aws/aws-network-policy-agent, pkg/ebpf/events/events.go, v1.0.1 to v1.4.1). Up to v1.2.1 the fields of
// the file are JSON fields, and later one text. The names are the same in both.
var (
	agentNames      = names{"Src IP", "Src Port", "Dest IP", "Dest Port", "Proto", "Verdict", "Direction"}
	cloudWatchNames = names{"SIP", "SPORT", "DIP", "DPORT", "PROTOCOL", "PolicyVerdict", ""}
)

func (l *Log) readAgent(line []byte, i int) { l.readFields(line, i, agentNames) }

func (l *Log) readCloudWatch(line []byte, i int) { l.readFields(line, i, cloudWatchNames) }

// maxRecord is the length, in bytes, within which all fields of a record are.
const maxRecord = 512

// readFields reads a record at offset i of a line.
func (l *Log) readFields(line []byte, i int, n names) {
	text := line[i:min(i+maxRecord, len(line))]
	source, text := valueAfter(text, n.source)
	sourcePort, text := valueAfter(text, n.sourcePort)
	destination, text := valueAfter(text, n.destination)
	port, text := valueAfter(text, n.port)
	protocol, text := valueAfter(text, n.protocol)
	verdict, text := valueAfter(text, n.verdict)
	r := record{at: timeIn(around(line, i))}
	var isShort [2]bool
	var ok [4]bool
	r.source, isShort[0], ok[0] = parseAddress(source)
	r.destination, isShort[1], ok[1] = parseAddress(destination)
	r.sourcePort, ok[2] = parsePort(sourcePort)
	r.port, ok[3] = parsePort(port)
	if ok != [4]bool{true, true, true, true} || protocol == "" || verdict == "" {
		l.skip(Unreadable)
		return
	}
	switch verdict {
	case "ACCEPT":
	case "DENY":
		r.isDenied = true
	default:
		l.skip(OtherState)
		return
	}
	direction := ""
	if n.direction != "" {
		direction, _ = valueAfter(text, n.direction)
	}
	switch {
	case direction == "ingress":
		l.skip(Ingress)
		return
	case direction == "" && r.isDenied && r.sourcePort < minPort && r.port >= minPort:
		l.skip(Reply) // a late packet of a connection that the agent has forgotten (aws/aws-network-policy-agent#127)
		return
	}
	for _, short := range isShort {
		if short {
			l.skip(Short)
		}
	}
	r.protocol = policy.Protocol(strings.ToUpper(protocol))
	l.add(r)
}

// valueAfter returns the value after a name, and the text after the value. Names and values may be in JSON, also in a
// JSON text within JSON, or in plain text. The value is empty if the text lacks the name.
func valueAfter(text []byte, name string) (value string, rest []byte) {
	i := bytes.Index(text, []byte(name))
	if i < 0 {
		return "", text
	}
	text = bytes.TrimLeft(text[i+len(name):], `\":, `)
	end := bytes.IndexAny(text, "\\\",; }\r\n")
	if end < 0 {
		end = len(text)
	}
	return string(text[:end]), text[end:]
}

// parseAddress parses an address of the node agent. It prints an IPv4 address as a number without its leading zeros, so
// that trailing zero octets are missing: 64.6.160 is 64.6.160.0.
func parseAddress(text string) (address netip.Addr, isShort, ok bool) {
	if address, err := netip.ParseAddr(text); err == nil {
		return address.Unmap(), false, address.Zone() == ""
	}
	if text == "" || strings.Trim(text, "0123456789.") != "" || strings.Count(text, ".") > 2 {
		return netip.Addr{}, false, false
	}
	address, err := netip.ParseAddr(text + strings.Repeat(".0", 3-strings.Count(text, ".")))
	return address, true, err == nil
}

func parsePort(text string) (uint16, bool) {
	port, err := strconv.ParseUint(text, 10, 16)
	return uint16(port), err == nil
}

// timeIn returns the time in the text around a record, in epoch seconds; 0 if it has none. The time is at the start of
// text, or in the JSON field ts, time or timestamp.
func timeIn(text []byte) int64 {
	if at := parseTime(text); at != 0 {
		return at
	}
	for _, name := range timeFields {
		if i := bytes.Index(text, name); i >= 0 {
			return parseTime(bytes.TrimLeft(text[i+len(name):], `" `))
		}
	}
	return 0
}

var timeFields = [][]byte{[]byte(`"ts":`), []byte(`"time":`), []byte(`"timestamp":`)}

// parseTime parses a time at the start of text: RFC 3339, or milliseconds since 1970.
func parseTime(text []byte) int64 {
	const layout = "2006-01-02T15:04:05"
	if len(text) >= len(layout) && text[4] == '-' && text[10] == 'T' {
		if at, err := time.Parse(layout, string(text[:len(layout)])); err == nil {
			return at.Unix()
		}
	}
	digits := 0
	for digits < len(text) && text[digits] >= '0' && text[digits] <= '9' {
		digits++
	}
	if digits == len("1769171813562") {
		milliseconds, _ := strconv.ParseInt(string(text[:digits]), 10, 64)
		return milliseconds / 1000
	}
	return 0
}
