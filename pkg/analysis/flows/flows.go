// Package flows reads logs of connections: what pods really did.
//
// A Log reads any number of files, and adds up the records of each flow. It recognises the format of each line: the log
// of the node agent of AWS VPC CNI, of any version and in any wrapper; VPC Flow Logs; and Hubble's JSON. A record that
// it cannot use is counted by its kind, and never dropped silently. Its memory depends on the number of distinct flows.
// That number is bounded, and the size of the files does not matter.
package flows

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"egress-agent/pkg/policy"
)

// Flow is a connection that pods made. It adds up the records of the connection.
type Flow struct {
	Source, Destination netip.Addr
	Port                uint16
	Protocol            policy.Protocol
	// Accepted and Denied count records, by their verdict. The log of AWS VPC CNI has a record for each denied packet, so
	// the numbers say little about the number of connections.
	Accepted, Denied int64
	// First and Last are the times of the first and the last record, in epoch seconds. They are 0 if no record has a time.
	First, Last int64
}

// Target returns ADDRESS:PORT/PROTOCOL of the other end.
func (f Flow) Target() string {
	return netip.AddrPortFrom(f.Destination, f.Port).String() + "/" + string(f.Protocol)
}

// Format is a format of logs.
type Format string

// The formats, as values of --flows-format.
const (
	Auto    Format = "auto"    // recognise the format of each line
	Agent   Format = "agent"   // the node agent of AWS VPC CNI, from its file, a container's output or CloudWatch
	VPC     Format = "vpc"     // VPC Flow Logs
	Hubble  Format = "hubble"  // hubble observe -o jsonpb, one object a line
	minPort        = 1 << 15   // the first port that Linux gives to the near end of a connection
	maxSeen        = 1_000_000 // distinct flows of a Log
)

// Formats lists the formats.
var Formats = []string{string(Auto), string(Agent), string(VPC), string(Hubble)}

// Kind is why a line or a record gives no flow.
type Kind int

// The kinds, in the order of Summary.
const (
	NoRecord   Kind = iota // a line without a record
	Ingress                // a connection to the pod
	Reply                  // a packet of a connection that the other end opened
	NoPort                 // a protocol without ports
	NoData                 // a record of VPC Flow Logs without traffic
	OtherState             // a verdict that is neither accepted nor denied
	Short                  // an address without its last zero octets; the flow counts
	Unreadable             // a record that cannot be read
	TooMany                // a further distinct flow
	kindCount
)

var kindTexts = [kindCount]string{
	NoRecord:   "lines without a record",
	Ingress:    "records of connections to the pods, left out",
	Reply:      "records of replies, left out",
	NoPort:     "records of protocols without ports, left out",
	NoData:     "records without traffic, left out",
	OtherState: "records without a verdict, left out",
	Short:      "addresses without their last octets, which are zeros that the node agent does not print",
	Unreadable: "records that cannot be read, left out",
	TooMany:    "records of further flows after 1000000 distinct ones, left out",
}

// Log has the flows of the files that it has read. Its zero value is empty and recognises formats.
type Log struct {
	// Format is the format of the files; empty means Auto.
	Format Format

	seen    map[key]counts
	skipped [kindCount]int64
	records int64
	// flowCount is the number of flows that TakeFlows has returned.
	flowCount int
	fields    *vpcFields // of VPC Flow Logs, from the header of the current file
}

// key identifies a flow in little memory. Addresses are in 16 bytes, as netip.Addr.As16 gives them.
type key struct {
	source, destination [16]byte
	port                uint16
	protocol            uint8
}

type counts struct {
	accepted, denied int64
	first, last      int64 // epoch seconds; 0 if unknown
}

// protocols have the numbers of package key.
var protocols = [...]policy.Protocol{policy.TCP, policy.UDP, policy.SCTP}

// record is one record of a log.
type record struct {
	source, destination netip.Addr
	sourcePort, port    uint16
	protocol            policy.Protocol
	isDenied            bool
	at                  int64 // epoch seconds; 0 if unknown
}

func (l *Log) skip(kind Kind) { l.skipped[kind]++ }

// add adds a record.
func (l *Log) add(r record) {
	protocol := slices.Index(protocols[:], r.protocol)
	if protocol < 0 || r.port == 0 {
		l.skip(NoPort)
		return
	}
	if l.seen == nil {
		l.seen = make(map[key]counts)
	}
	k := key{r.source.As16(), r.destination.As16(), r.port, uint8(protocol)}
	c, isKnown := l.seen[k]
	if !isKnown && len(l.seen) == maxSeen {
		l.skip(TooMany)
		return
	}
	if r.isDenied {
		c.denied++
	} else {
		c.accepted++
	}
	if r.at != 0 {
		if c.first == 0 || r.at < c.first {
			c.first = r.at
		}
		c.last = max(c.last, r.at)
	}
	l.seen[k] = c
	l.records++
}

// Records returns how many records gave a flow.
func (l *Log) Records() int64 { return l.records }

// TakeFlows returns the distinct flows, sorted by destination, port, protocol and source. The Log then has none any more,
// because both together would take much memory.
func (l *Log) TakeFlows() []Flow {
	flows := make([]Flow, 0, len(l.seen))
	for k, c := range l.seen {
		flows = append(flows, Flow{
			Source: netip.AddrFrom16(k.source).Unmap(), Destination: netip.AddrFrom16(k.destination).Unmap(),
			Port: k.port, Protocol: protocols[k.protocol], Accepted: c.accepted, Denied: c.denied,
			First: c.first, Last: c.last,
		})
	}
	l.flowCount += len(flows)
	l.seen = nil
	slices.SortFunc(flows, compareFlows)
	return flows
}

func compareFlows(a, b Flow) int {
	if c := a.Destination.Compare(b.Destination); c != 0 {
		return c
	}
	if a.Port != b.Port {
		return int(a.Port) - int(b.Port)
	}
	if c := strings.Compare(string(a.Protocol), string(b.Protocol)); c != 0 {
		return c
	}
	return a.Source.Compare(b.Source)
}

// Skipped returns how many lines or records are of a kind.
func (l *Log) Skipped(kind Kind) int64 { return l.skipped[kind] }

// Summary returns lines about the number of flows, and about each kind of skipped lines and records.
func (l *Log) Summary() []string {
	lines := []string{fmt.Sprintf("records: %d, distinct flows: %d", l.records, l.flowCount+len(l.seen))}
	for kind, count := range l.skipped {
		if count > 0 {
			lines = append(lines, fmt.Sprintf("%s: %d", kindTexts[kind], count))
		}
	}
	return lines
}
