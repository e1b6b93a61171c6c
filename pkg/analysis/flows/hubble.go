package flows

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"time"
)

// hubbleLine is an object of hubble observe -o jsonpb. The option -o json of old versions has the fields of the flow at the
// top (cilium/cilium, api/v1/flow/flow.proto).
type hubbleLine struct {
	Flow *hubbleFlow `json:"flow"`
	hubbleFlow
}

type hubbleFlow struct {
	Time    time.Time `json:"time"`
	Verdict string    `json:"verdict"`
	IP      struct {
		Source      string `json:"source"`
		Destination string `json:"destination"`
	} `json:"IP"`
	L4               map[string]json.RawMessage `json:"l4"`
	IsReply          *bool                      `json:"is_reply"`
	TrafficDirection string                     `json:"traffic_direction"`
}

// isHubble reports whether a line looks like a flow of Hubble.
func isHubble(line []byte) bool {
	return bytes.Contains(line, []byte(`"IP":{`)) && bytes.Contains(line, []byte(`"verdict":`))
}

func (l *Log) readHubble(line []byte) bool {
	start := bytes.IndexByte(line, '{')
	if start < 0 {
		return false
	}
	var parsed hubbleLine
	if err := json.Unmarshal(line[start:], &parsed); err != nil {
		l.skip(Unreadable)
		return true
	}
	flow := &parsed.hubbleFlow
	if parsed.Flow != nil {
		flow = parsed.Flow
	}
	var r record
	switch flow.Verdict {
	case "FORWARDED", "REDIRECTED", "AUDIT", "TRANSLATED":
	case "DROPPED", "ERROR":
		r.isDenied = true
	default:
		l.skip(OtherState)
		return true
	}
	switch {
	case flow.TrafficDirection == "INGRESS":
		l.skip(Ingress)
		return true
	case flow.IsReply != nil && *flow.IsReply:
		l.skip(Reply)
		return true
	}
	var errs [2]error
	r.source, errs[0] = netip.ParseAddr(flow.IP.Source)
	r.destination, errs[1] = netip.ParseAddr(flow.IP.Destination)
	if errs[0] != nil || errs[1] != nil {
		l.skip(Unreadable)
		return true
	}
	for _, protocol := range protocols {
		raw, ok := flow.L4[string(protocol)]
		if !ok {
			continue
		}
		var ports struct {
			Source      uint16 `json:"source_port"`
			Destination uint16 `json:"destination_port"`
		}
		if err := json.Unmarshal(raw, &ports); err != nil {
			l.skip(Unreadable)
			return true
		}
		r.protocol, r.sourcePort, r.port = protocol, ports.Source, ports.Destination
	}
	if flow.IsReply == nil && r.sourcePort < minPort && r.port >= minPort {
		l.skip(Reply)
		return true
	}
	if !flow.Time.IsZero() {
		r.at = flow.Time.Unix()
	}
	l.add(r)
	return true
}
