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

// NameCheck judges an AWS service name, or, if region is not empty, the name of a region of that service. It returns nil
// for a good name, and for a bad one what makes the message: few of the messages of a bad document are ever read.
type NameCheck func(service, region string) (message func() string)

// Validate checks every field of a document and returns the policy it describes. Names that only
// AWS's ranges know are left to names; nil accepts them all. The Policy is nil exactly when there
// are problems.
func Validate(document *Document, names NameCheck) (*Policy, Problems) {
	if names == nil {
		names = func(string, string) func() string { return nil }
	}
	v := &validator{names: names}
	p := v.policy(document.root)
	if v.more > 0 {
		v.problems = append(v.problems, Problem{Message: fmt.Sprintf("and %d more", v.more)})
	}
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
	names    NameCheck
	problems Problems
	more     int // problems that are not kept
}

func (v *validator) report(path *place, format string, args ...any) {
	v.problems.add(&v.more, path, format, args...)
}

// full reports whether a further problem is only counted, so that its message and path need not be made.
func (v *validator) full() bool { return len(v.problems) >= MaxProblems }

// item returns the place of a list's item, or, once nobody reads it, the list's.
func (v *validator) item(path *place, i int) *place {
	if v.full() {
		return path
	}
	return path.item(i)
}

func (v *validator) policy(n node) *Policy {
	p := &Policy{DefaultAction: Deny}
	root := &place{}
	if n.kind() != object {
		v.report(&place{name: Key}, "Invalid policy: must be an object, not %s", n.kind())
		return p
	}
	v.requireField(n, root, "allowedDestinations")
	for field, value := range v.fields(n, root, policyFields) {
		at := root.field(field)
		switch field {
		case "defaultAction":
			p.DefaultAction = v.defaultAction(value, at)
		case "allowedDestinations":
			p.Destinations = v.destinations(value, at)
		}
	}
	return p
}

func (v *validator) defaultAction(n node, path *place) Action {
	if !v.isKind(n, text, path, "defaultAction") {
		return Deny
	}
	action := Action(n.text())
	if action != Deny && action != Allow {
		v.report(path, "Invalid defaultAction: %s; must be deny or allow", Sanitize(n.text()))
	}
	return action
}

func (v *validator) destinations(n node, path *place) []Destination {
	if !v.isKind(n, list, path, "allowedDestinations") {
		return nil
	}
	count := n.count()
	if count > MaxDestinations {
		v.report(path, "Too many destinations: %d; at most %d are allowed: write wider entries, or several policies", count, MaxDestinations)
		count = MaxDestinations
	}
	destinations := make([]Destination, 0, count)
	seen := make(map[string]bool, count)
	for item := range n.children {
		if len(destinations) == MaxDestinations {
			break
		}
		destinations = append(destinations, v.destination(item, path.item(len(destinations)), seen))
	}
	return destinations
}

func (v *validator) destination(n node, path *place, seen map[string]bool) Destination {
	var d Destination
	if n.kind() != object {
		v.report(path, "Invalid destination: must be an object, not %s", n.kind())
		return d
	}
	v.requireField(n, path, "name")
	service, cidr := n.member("awsService"), n.member("cidr")
	if cidr != nil && service != nil {
		if cidr.kind() != null && service.kind() != null { // null is reported itself, and the other one is meant
			v.report(path, "Cannot specify both cidr and awsService")
		}
	} else if cidr == nil && service == nil {
		v.report(path, "Must specify either cidr or awsService")
	}
	for field, value := range v.fields(n, path, destinationFields) {
		at := path.field(field)
		switch field {
		case "name":
			d.Name = v.name(value, at, seen)
		case "cidr":
			d.CIDR = v.cidr(value, at)
		case "awsService":
			d.Service = v.service(value, at)
		case "regions":
			if cidr != nil && service == nil {
				v.report(at, "Invalid regions: only an awsService has regions")
			}
			d.Regions = v.regions(value, at, service)
		case "ports":
			d.Ports = v.ports(value, at)
		}
	}
	return d
}

func (v *validator) name(n node, path *place, seen map[string]bool) string {
	const longest = 63
	if !v.isKind(n, text, path, "name") {
		return ""
	}
	name := n.text()
	switch length := utf8.RuneCountInString(name); {
	case length == 0:
		v.report(path, `Invalid name: ""; must not be empty`)
	case length > longest:
		v.report(path, "Invalid name: %d characters; at most %d are allowed", length, longest)
	case !printable(name):
		v.report(path, "Invalid name: %s; only printable characters are allowed", Sanitize(name))
	case seen[name]:
		v.report(path, "Duplicate name: %s", name)
	}
	seen[name] = true
	return name
}

func (v *validator) service(n node, path *place) string {
	if !v.isKind(n, text, path, "awsService") {
		return ""
	}
	if n.text() == "" {
		v.report(path, `Invalid service: ""`)
	} else {
		v.judge(n.text(), "", path)
	}
	return n.text()
}

// judge reports a bad name of a service or a region.
func (v *validator) judge(service, region string, path *place) {
	message := v.names(service, region)
	switch {
	case message == nil:
	case v.full():
		v.more++
	default:
		v.report(path, "%s", message())
	}
}

// regions judges each region by the service beside it, wherever in the entry that stands.
func (v *validator) regions(n node, path *place, service node) []string {
	if !v.isKind(n, list, path, "regions") {
		return nil
	}
	count := n.count()
	if count == 0 {
		v.report(path, "Invalid regions: []; name a region, or leave the field out for every region")
	}
	regions := make([]string, 0, min(count, usualRegions))
	seen := make(map[string]bool, min(count, usualRegions))
	i := -1
	for item := range n.children {
		i++
		at := v.item(path, i)
		if !v.isKind(item, text, at, "region") {
			continue
		}
		region := item.text()
		switch {
		case region == "":
			v.report(at, `Invalid region: ""`)
		case seen[region]:
			v.report(at, "Duplicate region: %s", Sanitize(region))
			continue
		case service != nil && service.kind() == text:
			v.judge(service.text(), region, at)
		}
		seen[region] = true
		regions = append(regions, region)
	}
	return regions
}

// usualRegions is more than AWS has.
const usualRegions = 64

// isKind reports a value of another kind than the field takes.
func (v *validator) isKind(n node, want kind, path *place, field string) bool {
	if n.kind() != want {
		hint := ""
		if n.kind() == null {
			hint = nullHint(field)
		}
		v.report(path, "Invalid %s: must be %s, not %s%s", field, want, n.kind(), after(hint))
	}
	return n.kind() == want
}

func (v *validator) requireField(n node, path *place, field string) {
	if n.member(field) == nil {
		v.report(path.field(field), "Missing field: %s", field)
	}
}

// fields yields an object's known fields in document order, each once; those it does not yield,
// unknown and repeated ones, it reports in their place.
func (v *validator) fields(n node, path *place, known []string) iter.Seq2[string, node] {
	return func(yield func(string, node) bool) {
		seen := make([]bool, len(known))
		for child := range n.children {
			key := child[0].key
			field := slices.Index(known, key)
			switch {
			case field < 0:
				v.unknown(path.field(key), key, known)
			case seen[field]:
				v.report(path.field(key), "Duplicate field: %s", key)
			default:
				seen[field] = true
				if !yield(key, child) {
					return
				}
			}
		}
	}
}

func (v *validator) unknown(path *place, field string, known []string) {
	if v.full() {
		v.more++
		return
	}
	message := "Unknown field: " + Sanitize(field)
	if near := nearest.Name(field, known); near != "" {
		message += "; did you mean " + strconv.Quote(near) + "?"
	}
	v.report(path, "%s", message)
}

// place is a step of a path, the last first, so that only the path of a problem is ever written out. The zero place is
// the document.
type place struct {
	outer *place
	name  string // of a field
	index int    // of an item; -1 for a field
}

func (p *place) field(name string) *place { return &place{outer: p, name: name, index: -1} }
func (p *place) item(i int) *place        { return &place{outer: p, index: i} }

// String gives the path, as in allowedDestinations[1].ports[0]; empty for the document.
func (p *place) String() string {
	switch {
	case p.outer == nil:
		return p.name
	case p.index < 0:
		return join(p.outer.String(), p.name)
	}
	return index(p.outer.String(), p.index)
}

// join adds a field to a path: .field, or ["any text"] where a plain one could be misread.
func join(path, field string) string {
	if strings.ContainsAny(field, ".[]\" ()") || Sanitize(field) != field {
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
