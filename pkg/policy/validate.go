package policy

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"egress-agent/pkg/internal/nearest"
)

// Names judges an AWS service name, or, where region is not empty, the name of a region of that
// service. It returns the message for a bad one and the empty string for a good one.
type Names func(service, region string) (message string)

// Validate checks every field of a document and returns the policy it describes. Names that only
// AWS's ranges know are left to names; nil accepts them all. The Policy is nil exactly when there
// are problems.
func Validate(document *Document, names Names) (*Policy, Problems) {
	if names == nil {
		names = func(string, string) string { return "" }
	}
	v := &validator{names: names}
	p := v.policy(document.root)
	if len(v.problems) > 0 {
		return nil, v.problems
	}
	return p, nil
}

// The fields of each object, in the order the format documents them.
var (
	policyFields      = []string{"defaultAction", "allowedDestinations"}
	destinationFields = []string{"name", "cidr", "awsService", "regions", "ports"}
)

type validator struct {
	names    Names
	problems Problems
}

func (v *validator) report(path, format string, args ...any) {
	v.problems = append(v.problems, Problem{Message: fmt.Sprintf(format, args...), Path: path})
}

func (v *validator) policy(n node) *Policy {
	p := &Policy{DefaultAction: Deny}
	if n.kind != object {
		v.report(Key, "Invalid policy: must be an object, not %s", n.kind)
		return p
	}
	v.require(n, "", "allowedDestinations")
	for field, value := range v.fields(n, "", policyFields) {
		switch field {
		case "defaultAction":
			p.DefaultAction = v.defaultAction(value, field)
		case "allowedDestinations":
			p.Destinations = v.destinations(value, field)
		}
	}
	return p
}

func (v *validator) defaultAction(n node, path string) Action {
	if !v.is(n, text, path, "defaultAction") {
		return Deny
	}
	action := Action(n.text)
	if action != Deny && action != Allow {
		v.report(path, "Invalid defaultAction: %s; must be deny or allow", Show(n.text))
	}
	return action
}

func (v *validator) destinations(n node, path string) []Destination {
	if !v.is(n, list, path, "allowedDestinations") {
		return nil
	}
	destinations := make([]Destination, 0, len(n.items))
	seen := make(map[string]bool, len(n.items))
	for i, item := range n.items {
		d := v.destination(item, index(path, i), seen)
		destinations = append(destinations, d)
	}
	return destinations
}

func (v *validator) destination(n node, path string, seen map[string]bool) Destination {
	var d Destination
	if n.kind != object {
		v.report(path, "Invalid destination: must be an object, not %s", n.kind)
		return d
	}
	v.require(n, path, "name")
	service, hasService := n.member("awsService")
	_, hasCIDR := n.member("cidr")
	if hasCIDR && hasService {
		v.report(path, "Cannot specify both cidr and awsService")
	} else if !hasCIDR && !hasService {
		v.report(path, "Must specify either cidr or awsService")
	}
	for field, value := range v.fields(n, path, destinationFields) {
		at := join(path, field)
		switch field {
		case "name":
			d.Name = v.name(value, at, seen)
		case "cidr":
			d.CIDR = v.cidr(value, at)
		case "awsService":
			d.Service = v.service(value, at)
		case "regions":
			if hasCIDR && !hasService {
				v.report(at, "Invalid regions: only an awsService has regions")
			}
			d.Regions = v.regions(value, at, service)
		case "ports":
			d.Ports = v.ports(value, at)
		}
	}
	return d
}

func (v *validator) name(n node, path string, seen map[string]bool) string {
	const longest = 63
	if !v.is(n, text, path, "name") {
		return ""
	}
	switch length := utf8.RuneCountInString(n.text); {
	case length == 0:
		v.report(path, `Invalid name: ""; must not be empty`)
	case length > longest:
		v.report(path, "Invalid name: %d characters; at most %d are allowed", length, longest)
	case !printable(n.text):
		v.report(path, "Invalid name: %s; only printable characters are allowed", Show(n.text))
	case seen[n.text]:
		v.report(path, "Duplicate name: %s", n.text)
	}
	seen[n.text] = true
	return n.text
}

func (v *validator) service(n node, path string) string {
	if !v.is(n, text, path, "awsService") {
		return ""
	}
	if n.text == "" {
		v.report(path, `Invalid service: ""`)
	} else if message := v.names(n.text, ""); message != "" {
		v.report(path, "%s", message)
	}
	return n.text
}

// regions judges each region by the service beside it, wherever in the entry that stands.
func (v *validator) regions(n node, path string, service node) []string {
	if !v.is(n, list, path, "regions") {
		return nil
	}
	if len(n.items) == 0 {
		v.report(path, "Invalid regions: []; name a region, or leave the field out for every region")
	}
	regions := make([]string, 0, len(n.items))
	for i, item := range n.items {
		at := index(path, i)
		if !v.is(item, text, at, "region") {
			continue
		}
		message := ""
		if item.text == "" {
			message = `Invalid region: ""`
		} else if service.kind == text {
			message = v.names(service.text, item.text)
		}
		if message != "" {
			v.report(at, "%s", message)
		}
		regions = append(regions, item.text)
	}
	return regions
}

// is reports a value of another kind than the field takes.
func (v *validator) is(n node, want kind, path, field string) bool {
	if n.kind != want {
		v.report(path, "Invalid %s: must be %s, not %s", field, want, n.kind)
	}
	return n.kind == want
}

func (v *validator) require(n node, path, field string) {
	if _, ok := n.member(field); !ok {
		v.report(join(path, field), "Missing field: %s", field)
	}
}

// fields yields an object's known fields in document order, each once; those it does not yield,
// unknown and repeated ones, it reports in their place.
func (v *validator) fields(n node, path string, known []string) iter.Seq2[string, node] {
	return func(yield func(string, node) bool) {
		seen := make([]bool, len(known))
		for _, m := range n.members {
			field := slices.Index(known, m.key)
			if field < 0 {
				v.unknown(join(path, m.key), m.key, known)
				continue
			}
			if seen[field] {
				v.report(join(path, m.key), "Duplicate field: %s", m.key)
				continue
			}
			seen[field] = true
			if !yield(m.key, m.value) {
				return
			}
		}
	}
}

func (v *validator) unknown(path, field string, known []string) {
	message := "Unknown field: " + Show(field)
	if near := nearest.Name(field, known); near != "" {
		message += "; did you mean " + strconv.Quote(near) + "?"
	}
	v.report(path, "%s", message)
}

// join adds a field to a path: .field, or ["any text"] where a plain one could be misread.
func join(path, field string) string {
	if strings.ContainsAny(field, ".[]\" ()") || Show(field) != field {
		if len(field) > 80 {
			field = field[:80] + "…"
		}
		return path + "[" + strconv.Quote(field) + "]"
	}
	if path == "" {
		return field
	}
	return path + "." + field
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
