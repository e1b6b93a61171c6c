package recommend

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/policy"
)

// Document returns a policy.json with the destinations, one in each line. It is valid if the destinations are. podSelector
// is nil for every pod.
func Document(podSelector *metav1.LabelSelector, destinations []policy.Destination) string {
	var b strings.Builder
	b.WriteString("{")
	if podSelector != nil {
		text, err := json.Marshal(podSelector)
		if err != nil {
			panic(err) // strings and their lists always encode
		}
		b.WriteString(`"podSelector": ` + string(text) + ",\n ")
	}
	b.WriteString(`"allowedDestinations": [`)
	for i, d := range destinations {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString("\n  " + marshal(d))
	}
	b.WriteString("]}\n")
	return b.String()
}

// marshal returns a destination in JSON, with its fields in the order of the documentation.
func marshal(d policy.Destination) string {
	var fields []string
	add := func(name string, value any) {
		text, err := json.Marshal(value)
		if err != nil {
			panic(err) // strings, numbers and their lists always encode
		}
		fields = append(fields, fmt.Sprintf("%q: %s", name, text))
	}
	add("name", d.Name)
	switch {
	case d.Service != "":
		add("awsService", d.Service)
		if d.Without != nil {
			add("without", d.Without)
		}
		if d.Regions != nil {
			add("regions", d.Regions)
		}
	case d.Pods != nil:
		if len(d.Pods.Labels) > 0 || d.Pods.Namespace == "" {
			labels := d.Pods.Labels
			if labels == nil {
				labels = map[string]string{}
			}
			add("pods", labels)
		}
		if d.Pods.Namespace != "" {
			add("namespace", d.Pods.Namespace)
		}
	case d.Entity != "":
		add("entity", d.Entity)
	case d.Domain != "":
		add("domain", d.Domain)
	default:
		add("cidr", d.CIDR)
	}
	if d.Except != nil {
		add("except", d.Except)
	}
	if d.Ports != nil {
		add("ports", portValues(d.Ports))
	}
	if d.Reason != "" {
		add("reason", d.Reason)
	}
	if !d.Expires.IsZero() {
		add("expires", d.Expires.Format(time.RFC3339Nano))
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

// portValues returns ports as a policy writes them: a number for a TCP port, and an object for another port or a range.
func portValues(ports []policy.Port) []any {
	type object struct {
		Port     uint16          `json:"port"`
		EndPort  uint16          `json:"endPort,omitempty"`
		Protocol policy.Protocol `json:"protocol,omitempty"`
	}
	var values []any
	for _, port := range ports {
		if port.Protocol == policy.TCP && port.First == port.Last {
			values = append(values, port.First)
			continue
		}
		o := object{Port: port.First}
		if port.Last > port.First {
			o.EndPort = port.Last
		}
		if port.Protocol != policy.TCP {
			o.Protocol = port.Protocol
		}
		values = append(values, o)
	}
	return values
}

// Reason returns the evidence of an entry as the reason of a destination.
func (e Evidence) Reason() string {
	text := "seen: " + plural(e.Flows, "flow") + " from " + plural(e.Sources, "source") + " to " + plural(e.Addresses, "address")
	if !e.First.IsZero() {
		text += ", " + e.First.Format(time.DateOnly) + " to " + e.Last.Format(time.DateOnly)
	}
	return text
}

// plural returns a number and a noun, such as "1 address" or "2 addresses".
func plural(n int, noun string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(noun, "s"):
		noun += "es"
	default:
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// String returns the evidence of an entry, and its cost.
func (e Evidence) String() string {
	text := e.Reason()
	if e.Opens > 0 {
		text += fmt.Sprintf("; it opens %s, %d without a flow", plural(int(e.Opens), "address"), max(e.Opens-int64(e.Addresses), 0))
	}
	if e.Unpublished != "" {
		text += "; these are addresses of " + e.Unpublished + ", which AWS publishes for no other service"
	}
	return text
}
