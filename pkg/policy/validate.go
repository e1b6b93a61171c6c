package policy

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"unicode/utf8"

	"egress-agent/pkg/internal/nearest"
)

// NameCheck checks an AWS service name or, if region is not empty, the name of a region of that service. It returns nil
// for a valid name. For an invalid name it returns a function that makes the message, because a user never sees
// most messages of a document with many problems.
type NameCheck func(service, region string) (message func() string)

// Validate checks every field of a document and returns the policy. checkName checks the service and region names; if
// checkName is nil, Validate accepts every name. The Policy is nil if and only if there are problems.
func Validate(document *Document, checkName NameCheck) (*Policy, Problems) {
	if checkName == nil {
		checkName = func(string, string) func() string { return nil }
	}
	v := &validator{checkName: checkName}
	p := v.policy(document.root)
	if v.omittedCount > 0 {
		v.problems = append(v.problems, Problem{Message: fmt.Sprintf("and %d more", v.omittedCount)})
	}
	if len(v.problems) > 0 {
		return nil, v.problems
	}
	return p, nil
}

// The known fields of each object, in the order of the documentation.
var (
	policyFields      = []string{"defaultAction", "allowedDestinations"}
	destinationFields = []string{"name", "cidr", "awsService", "regions", "ports"}
)

type validator struct {
	checkName    NameCheck
	problems     Problems
	omittedCount int // the number of problems after the first MaxProblems
}

func (v *validator) report(path *fieldPath, format string, args ...any) {
	v.problems.add(&v.omittedCount, path, format, args...)
}

// isFull reports whether v already has MaxProblems problems. If so, report only counts a problem, so the caller need
// not make the problem's message and path.
func (v *validator) isFull() bool { return len(v.problems) >= MaxProblems }

// itemPath returns the path of the i-th item of the list at path. If v is full, report does not use a path, so itemPath
// saves the memory and returns the list's path.
func (v *validator) itemPath(path *fieldPath, i int) *fieldPath {
	if v.isFull() {
		return path
	}
	return path.item(i)
}

func (v *validator) policy(n node) *Policy {
	p := &Policy{DefaultAction: Deny}
	root := &fieldPath{}
	if n.kind() != object {
		v.report(&fieldPath{name: Key}, "Invalid policy: must be an object, not %s", n.kind())
		return p
	}
	v.requireField(n, root, "allowedDestinations")
	for field, value := range v.knownFields(n, root, policyFields) {
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

func (v *validator) defaultAction(n node, path *fieldPath) Action {
	if !v.checkKind(n, text, path, "defaultAction") {
		return Deny
	}
	action := Action(n.text())
	if action != Deny && action != Allow {
		v.report(path, "Invalid defaultAction: %s; must be deny or allow", Sanitize(n.text()))
	}
	return action
}

func (v *validator) destinations(n node, path *fieldPath) []Destination {
	if !v.checkKind(n, list, path, "allowedDestinations") {
		return nil
	}
	count := n.count()
	if count > MaxDestinations {
		v.report(path, "Too many destinations: %d; at most %d are allowed: use wider destinations, or split the policy into several ConfigMaps", count, MaxDestinations)
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

func (v *validator) destination(n node, path *fieldPath, seen map[string]bool) Destination {
	var d Destination
	if n.kind() != object {
		v.report(path, "Invalid destination: must be an object, not %s", n.kind())
		return d
	}
	v.requireField(n, path, "name")
	service, cidr := n.member("awsService"), n.member("cidr")
	if cidr != nil && service != nil {
		if cidr.kind() != null && service.kind() != null { // checkKind reports the null; the author means the other field
			v.report(path, "Cannot specify both cidr and awsService")
		}
	} else if cidr == nil && service == nil {
		v.report(path, "Must specify either cidr or awsService")
	}
	for field, value := range v.knownFields(n, path, destinationFields) {
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
				v.report(at, "Invalid regions: only a destination with awsService can have regions")
			}
			d.Regions = v.regions(value, at, service)
		case "ports":
			d.Ports = v.ports(value, at)
		}
	}
	return d
}

func (v *validator) name(n node, path *fieldPath, seen map[string]bool) string {
	const maxLength = 63
	if !v.checkKind(n, text, path, "name") {
		return ""
	}
	name := n.text()
	switch length := utf8.RuneCountInString(name); {
	case length == 0:
		v.report(path, `Invalid name: ""; must not be empty`)
	case length > maxLength:
		v.report(path, "Invalid name: %d characters; at most %d are allowed", length, maxLength)
	case !isPrintable(name):
		v.report(path, "Invalid name: %s; only printable characters are allowed", Sanitize(name))
	case seen[name]:
		v.report(path, "Duplicate name: %s", name)
	}
	seen[name] = true
	return name
}

func (v *validator) service(n node, path *fieldPath) string {
	if !v.checkKind(n, text, path, "awsService") {
		return ""
	}
	if n.text() == "" {
		v.report(path, `Invalid service: ""`)
	} else {
		v.checkAWSName(n.text(), "", path)
	}
	return n.text()
}

// checkAWSName adds a problem if the name of a service or, if region is not empty, of a region is invalid.
func (v *validator) checkAWSName(service, region string, path *fieldPath) {
	message := v.checkName(service, region)
	switch {
	case message == nil:
	case v.isFull():
		v.omittedCount++
	default:
		v.report(path, "%s", message())
	}
}

// regions checks each region together with service, the value of awsService. A destination may have awsService before
// or after its regions. service is nil if the destination has no awsService.
func (v *validator) regions(n node, path *fieldPath, service node) []string {
	if !v.checkKind(n, list, path, "regions") {
		return nil
	}
	count := n.count()
	if count == 0 {
		v.report(path, "Invalid regions: []; list at least one region, or omit regions to open every region")
	}
	regions := make([]string, 0, min(count, maxPreallocatedRegions))
	seen := make(map[string]bool, min(count, maxPreallocatedRegions))
	i := -1
	for item := range n.children {
		i++
		at := v.itemPath(path, i)
		if !v.checkKind(item, text, at, "region") {
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
			v.checkAWSName(service.text(), region, at)
		}
		seen[region] = true
		regions = append(regions, region)
	}
	return regions
}

// maxPreallocatedRegions limits the memory that regions allocates before it reads the list. AWS has fewer regions.
const maxPreallocatedRegions = 64

// checkKind reports whether n, the value of a field, has the required kind. If n has another kind, checkKind adds a
// problem.
func (v *validator) checkKind(n node, required kind, path *fieldPath, field string) bool {
	if n.kind() != required {
		hint := ""
		if n.kind() == null {
			hint = nullHint(field)
		}
		v.report(path, "Invalid %s: must be %s, not %s%s", field, required, n.kind(), withSeparator(hint))
	}
	return n.kind() == required
}

func (v *validator) requireField(n node, path *fieldPath, field string) {
	if n.member(field) == nil {
		v.report(path.field(field), "Missing field: %s", field)
	}
}

// knownFields yields the known fields of the object n in document order. It yields each field once. It does not yield
// an unknown or a duplicate field. Instead it adds a problem, also in document order.
func (v *validator) knownFields(n node, path *fieldPath, known []string) iter.Seq2[string, node] {
	return func(yield func(string, node) bool) {
		seen := make([]bool, len(known))
		for child := range n.children {
			key := child[0].key
			index := slices.Index(known, key)
			switch {
			case index < 0:
				v.reportUnknown(path.field(key), key, known)
			case seen[index]:
				v.report(path.field(key), "Duplicate field: %s", key)
			default:
				seen[index] = true
				if !yield(key, child) {
					return
				}
			}
		}
	}
}

// reportUnknown adds a problem for an unknown field. The message suggests a known field with a similar name.
func (v *validator) reportUnknown(path *fieldPath, field string, known []string) {
	if v.isFull() {
		v.omittedCount++
		return
	}
	message := "Unknown field: " + Sanitize(field)
	if near := nearest.Name(field, known); near != "" {
		message += "; did you mean " + strconv.Quote(near) + "?"
	}
	v.report(path, "%s", message)
}
