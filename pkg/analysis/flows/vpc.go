package flows

import (
	"bytes"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"egress-agent/pkg/policy"
)

// vpcFields are the places of the fields in a record of VPC Flow Logs; -1 for a field that the format lacks
// (https://docs.aws.amazon.com/vpc/latest/userguide/flow-log-records.html).
type vpcFields struct {
	count                                      int
	source, destination, sourcePort, port      int
	packetSource, packetDestination            int
	protocol, start, action, status, direction int
	flags                                      int
}

// defaultFields are the fields of version 2, whose records have no header.
var defaultFields = newFields(strings.Fields("version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status"))

func newFields(header []string) *vpcFields {
	at := func(name string) int { return slices.Index(header, name) }
	return &vpcFields{
		count: len(header), source: at("srcaddr"), destination: at("dstaddr"), sourcePort: at("srcport"), port: at("dstport"),
		packetSource: at("pkt-srcaddr"), packetDestination: at("pkt-dstaddr"),
		protocol: at("protocol"), start: at("start"), action: at("action"), status: at("log-status"), direction: at("flow-direction"),
		flags: at("tcp-flags"),
	}
}

// readVPC reads a header, or the records of VPC Flow Logs that begin before limit, and reports whether the line has any.
func (l *Log) readVPC(line []byte, limit int) (found bool) {
	if len(line) <= maxHeader {
		fields := strings.Fields(string(line))
		if slices.Contains(fields, "dstaddr") || slices.Contains(fields, "pkt-dstaddr") {
			l.fields = newFields(fields)
			return true
		}
		if l.fields != nil && len(fields) == l.fields.count {
			l.readVPCRecord(l.fields, fields)
			return true
		}
	}
	// Without a header it is the default format, perhaps in a wrapper, as in an export of CloudWatch.
	for offset := 0; ; {
		i := bytes.Index(line[offset:], networkMarker)
		if i < 0 || offset+i >= limit {
			return found
		}
		found = true
		l.readDefaultRecord(line, offset+i)
		offset += i + len(networkMarker)
	}
}

const (
	maxHeader  = 4 << 10 // bytes; no header and no record is longer
	maxDefault = 256     // bytes; no record of the default format is longer
)

// networkMarker is before the third field of the default format.
var networkMarker = []byte(" eni-")

// readDefaultRecord reads a record whose third field follows the space at offset i of a line.
func (l *Log) readDefaultRecord(line []byte, i int) {
	before := strings.Fields(string(line[max(i-window, 0):i]))
	after := strings.Fields(string(line[i:min(i+maxDefault, len(line))]))
	if len(before) < 2 || len(after) < defaultFields.count-2 {
		l.skip(Unreadable)
		return
	}
	record := append([]string{"", before[len(before)-1]}, after[:defaultFields.count-2]...)
	last := &record[len(record)-1]
	if end := strings.IndexAny(*last, `"\,`); end >= 0 {
		*last = (*last)[:end]
	}
	l.readVPCRecord(defaultFields, record)
}

func (l *Log) readVPCRecord(f *vpcFields, values []string) {
	value := func(i int) string {
		if i < 0 {
			return ""
		}
		return values[i]
	}
	if status := value(f.status); status == "NODATA" || status == "SKIPDATA" {
		l.skip(NoData)
		return
	}
	first := func(names ...int) string {
		for _, i := range names {
			if text := value(i); text != "" && text != "-" {
				return text
			}
		}
		return ""
	}
	var r record
	var err [2]error
	r.source, err[0] = netip.ParseAddr(first(f.packetSource, f.source))
	r.destination, err[1] = netip.ParseAddr(first(f.packetDestination, f.destination))
	sourcePort, hasSourcePort := parsePort(value(f.sourcePort))
	port, hasPort := parsePort(value(f.port))
	if err[0] != nil || err[1] != nil || !hasPort || !hasSourcePort {
		l.skip(Unreadable)
		return
	}
	r.sourcePort, r.port = sourcePort, port
	switch value(f.action) {
	case "ACCEPT", "":
	case "REJECT":
		r.isDenied = true
	default:
		l.skip(OtherState)
		return
	}
	switch value(f.protocol) {
	case "6", "": // a format without the protocol is read as TCP
		r.protocol = policy.TCP
	case "17":
		r.protocol = policy.UDP
	case "132":
		r.protocol = policy.SCTP
	default:
		l.skip(NoPort)
		return
	}
	if value(f.direction) == "ingress" {
		l.skip(Ingress)
		return
	}
	if isReply(r, value(f.flags)) {
		l.skip(Reply)
		return
	}
	r.at, _ = strconv.ParseInt(value(f.start), 10, 64)
	l.add(r)
}

// isReply reports whether the sender of a record's packets did not open the connection. flags are the union of the packets'
// TCP flags. An opening sender sends SYN (2), and the other end answers SYN and ACK (18). Without flags, the lower port
// belongs to the service.
func isReply(r record, flags string) bool {
	if number, err := strconv.Atoi(flags); err == nil && r.protocol == policy.TCP && number&2 != 0 {
		return number&18 == 18
	}
	return r.sourcePort < minPort && r.port >= minPort
}
