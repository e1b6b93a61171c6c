package policy

import (
	"slices"
	"strings"
	"unicode/utf8"

	"egress-agent/pkg/internal/document"
)

// NameCheck checks an AWS service name or, if region is not empty, the name of a region of that service. It returns nil
// for a valid name. For an invalid name it returns a function that makes the message, because a user never sees
// most messages of a document with many problems.
type NameCheck func(service, region string) (message func() string)

// DomainCheck checks a domain that is well formed. Its result is as for NameCheck.
type DomainCheck func(domain string) (message func() string)

// Names checks the names in a document. A function that is nil accepts every name.
type Names struct {
	AWS    NameCheck
	Domain DomainCheck
}

// Validate checks every field of a document and returns the policy. The Policy is nil if and only if there are
// problems.
func Validate(d *Document, names Names) (*Policy, Problems) {
	v := &validator{Checker: &document.Checker{}, names: names}
	p := v.policy(d.root)
	if problems := v.Problems(); problems != nil {
		return nil, problems
	}
	return p, nil
}

// ReadDestinations checks a list of destinations, and adds their problems to checker. It returns the destinations in
// document order. They are incomplete if there are problems. field is the name of the list in messages. Paths start at
// path.
func ReadDestinations(checker *document.Checker, list document.Node, path *document.Path, field string, names Names) []Destination {
	return (&validator{Checker: checker, names: names}).destinations(list, path, field)
}

// The known fields of each object, in the order of the documentation.
var (
	policyFields      = []string{"defaultAction", "podSelector", "allowedDestinations"}
	destinationFields = []string{
		"name", "cidr", "except", "awsService", "without", "regions", "pods", "namespace", "entity", "domain", "ports", "reason", "expires",
	}
	// kindFields are the fields that decide the kind of a destination. pods and namespace are one kind.
	kindFields = []string{"cidr", "awsService", "pods", "namespace", "entity", "domain"}
)

type validator struct {
	*document.Checker
	names Names

	// The cost of a policy, which validator limits.
	exceptCount          int
	exceptedServiceCount int
	withoutLists         map[string]bool
	domainCount          int
}

func (v *validator) policy(n document.Node) *Policy {
	p := &Policy{DefaultAction: Deny}
	root := &document.Path{}
	if n.Kind() != document.Object {
		v.Report(document.RootPath(Key), "Invalid policy: must be an object, not %s", n.Kind())
		return p
	}
	v.RequireField(n, root, "allowedDestinations")
	for field, value := range v.KnownFields(n, root, policyFields) {
		at := root.Field(field)
		switch field {
		case "defaultAction":
			p.DefaultAction = v.defaultAction(value, at)
		case "podSelector":
			_, selector := ReadSelector(v.Checker, value, at, field)
			p.PodSelector = &selector
		case "allowedDestinations":
			p.Destinations = v.destinations(value, at, field)
		}
	}
	return p
}

func (v *validator) defaultAction(n document.Node, path *document.Path) Action {
	if !v.CheckKind(n, document.Text, path, "defaultAction") {
		return Deny
	}
	action := Action(n.Text())
	if action != Deny && action != Allow {
		v.Report(path, "Invalid defaultAction: %s; must be deny or allow", Sanitize(n.Text()))
	}
	return action
}

func (v *validator) destinations(n document.Node, path *document.Path, field string) []Destination {
	if !v.CheckKind(n, document.List, path, field) {
		return nil
	}
	count := n.Count()
	if count > MaxDestinations {
		v.Report(path, "Too many destinations: %d; at most %d are allowed: use wider destinations, or split the policy into several ConfigMaps", count, MaxDestinations)
		count = MaxDestinations
	}
	destinations := make([]Destination, 0, count)
	seen := make(map[string]bool, count)
	for item := range n.Children {
		if len(destinations) == MaxDestinations {
			break
		}
		destinations = append(destinations, v.destination(item, path.Item(len(destinations)), seen))
	}
	return destinations
}

func (v *validator) destination(n document.Node, path *document.Path, seen map[string]bool) Destination {
	var d Destination
	if n.Kind() != document.Object {
		v.Report(path, "Invalid destination: must be an object, not %s", n.Kind())
		return d
	}
	v.RequireField(n, path, "name")
	service, kind := n.Member("awsService"), v.kind(n, path)
	for field, value := range v.KnownFields(n, path, destinationFields) {
		at := path.Field(field)
		switch field {
		case "name":
			d.Name = v.name(value, at, seen)
		case "cidr":
			d.CIDR = v.cidr(value, at)
		case "except":
			if kind != "" && kind != "cidr" && service == nil {
				v.Report(at, "Invalid except: only a destination with cidr or awsService can have except")
			}
			d.Except = v.except(value, at)
		case "awsService":
			d.Service = v.service(value, at)
		case "without":
			if kind != "" && service == nil {
				v.Report(at, "Invalid without: only a destination with awsService can have without")
			}
			d.Without = v.without(value, at, service)
		case "regions":
			if kind != "" && service == nil {
				v.Report(at, "Invalid regions: only a destination with awsService can have regions")
			}
			d.Regions = v.regions(value, at, service)
		case "pods":
			d.Pods = v.pods(d.Pods, value, at)
		case "namespace":
			d.Pods = v.namespace(d.Pods, value, at)
		case "entity":
			d.Entity = v.entity(value, at)
		case "domain":
			d.Domain = v.domain(value, at)
		case "ports":
			if kind == "entity" {
				v.Report(at, "Invalid ports: an entity has its own ports; remove ports")
			}
			d.Ports = v.ports(value, at)
		case "reason":
			d.Reason = ReadReason(v.Checker, value, at)
		case "expires":
			d.Expires = v.expires(value, at)
		}
	}
	v.checkExcept(d, path)
	return d
}

// kind returns the field that decides the kind of a destination, or "". It reports a problem unless the destination has
// exactly one such field.
func (v *validator) kind(n document.Node, path *document.Path) string {
	var present []string
	for _, field := range kindFields {
		// checkKind reports a null; the author means the other field
		if value := n.Member(field); value != nil && (value.Kind() != document.Null || present == nil) {
			present = append(present, field)
		}
	}
	if len(present) > 1 && n.Member(present[0]).Kind() == document.Null {
		present = present[1:]
	}
	switch {
	case len(present) == 0:
		v.Report(path, "Must specify either cidr or awsService")
		return ""
	case len(present) == 1, len(present) == 2 && present[0] == "pods" && present[1] == "namespace":
	case present[0] == "pods" && present[1] == "namespace":
		v.Report(path, "Cannot specify both pods and %s", present[2])
	default:
		v.Report(path, "Cannot specify both %s and %s", present[0], present[1])
	}
	return present[0]
}

// MaxReason limits a reason, in characters.
const MaxReason = 256

// ReadReason checks a reason, and adds its problem to checker. It returns the reason.
func ReadReason(checker *document.Checker, n document.Node, path *document.Path) string {
	if !checker.CheckKind(n, document.Text, path, "reason") {
		return ""
	}
	reason := n.Text()
	switch length := utf8.RuneCountInString(reason); {
	case length == 0:
		checker.Report(path, `Invalid reason: ""; must not be empty`)
	case length > MaxReason:
		checker.Report(path, "Invalid reason: %d characters; at most %d are allowed", length, MaxReason)
	case !document.IsPrintable(reason):
		checker.Report(path, "Invalid reason: %s; only printable characters are allowed", Sanitize(reason))
	}
	return reason
}

func (v *validator) name(n document.Node, path *document.Path, seen map[string]bool) string {
	const maxLength = 63
	if !v.CheckKind(n, document.Text, path, "name") {
		return ""
	}
	name := n.Text()
	switch length := utf8.RuneCountInString(name); {
	case length == 0:
		v.Report(path, `Invalid name: ""; must not be empty`)
	case length > maxLength:
		v.Report(path, "Invalid name: %d characters; at most %d are allowed", length, maxLength)
	case !document.IsPrintable(name):
		v.Report(path, "Invalid name: %s; only printable characters are allowed", Sanitize(name))
	case seen[name]:
		v.Report(path, "Duplicate name: %s", name)
	}
	seen[name] = true
	return name
}

func (v *validator) service(n document.Node, path *document.Path) string {
	if !v.CheckKind(n, document.Text, path, "awsService") {
		return ""
	}
	if n.Text() == "" {
		v.Report(path, `Invalid service: ""`)
	} else {
		v.checkAWSName(n.Text(), "", path)
	}
	return n.Text()
}

// checkAWSName adds a problem if the name of a service or, if region is not empty, of a region is invalid.
func (v *validator) checkAWSName(service, region string, path *document.Path) {
	if v.names.AWS == nil {
		return
	}
	if message := v.names.AWS(service, region); message != nil {
		v.ReportLazily(path, message)
	}
}

// regions checks each region together with service, the value of awsService. A destination may have awsService before
// or after its regions. service is nil if the destination has no awsService.
func (v *validator) regions(n document.Node, path *document.Path, service document.Node) []string {
	if !v.CheckKind(n, document.List, path, "regions") {
		return nil
	}
	count := n.Count()
	if count == 0 {
		v.Report(path, "Invalid regions: []; list at least one region, or omit regions to open every region")
	}
	regions := make([]string, 0, min(count, maxPreallocatedRegions))
	seen := make(map[string]bool, min(count, maxPreallocatedRegions))
	i := -1
	for item := range n.Children {
		i++
		at := v.ItemPath(path, i)
		if !v.CheckKind(item, document.Text, at, "region") {
			continue
		}
		region := item.Text()
		switch {
		case region == "":
			v.Report(at, `Invalid region: ""`)
		case seen[region]:
			v.Report(at, "Duplicate region: %s", Sanitize(region))
			continue
		case service != nil && service.Kind() == document.Text:
			v.checkAWSName(service.Text(), region, at)
		}
		seen[region] = true
		regions = append(regions, region)
	}
	return regions
}

// maxPreallocatedRegions limits the memory that regions allocates before it reads the list. AWS has fewer regions.
const maxPreallocatedRegions = 64

// MaxWithoutLists is the number of different pairs of awsService and without in a policy. Each takes a comparison of all
// rows.
const MaxWithoutLists = 16

// without checks each name together with service, the value of awsService. service is nil if the destination has no
// awsService.
func (v *validator) without(n document.Node, path *document.Path, service document.Node) []string {
	if !v.CheckKind(n, document.List, path, "without") {
		return nil
	}
	if n.Count() == 0 {
		v.Report(path, "Invalid without: []; list at least one service, or omit without")
	}
	own := ""
	if service != nil && service.Kind() == document.Text {
		own = serviceKey(service.Text())
	}
	var names []string
	seen := make(map[string]bool)
	i := -1
	for item := range n.Children {
		i++
		at := v.ItemPath(path, i)
		if !v.CheckKind(item, document.Text, at, "service") {
			continue
		}
		name, key := item.Text(), serviceKey(item.Text())
		switch {
		case name == "":
			v.Report(at, `Invalid service: ""`)
		case seen[key]:
			v.Report(at, "Duplicate service: %s", Sanitize(name))
			continue
		case key == own:
			v.Report(at, "Invalid without: %s is the service itself, so nothing would remain; name other services", Sanitize(name))
		case key == serviceKey("amazon"):
			v.Report(at, "Invalid without: amazon has the addresses of every AWS service, so nothing would remain; name other services")
		default:
			v.checkAWSName(name, "", at)
		}
		seen[key] = true
		names = append(names, name)
	}
	v.countWithout(own, names, path)
	return names
}

// countWithout adds a problem if the policy has too many different lists.
func (v *validator) countWithout(service string, names []string, path *document.Path) {
	keys := []string{service}
	for _, name := range names {
		keys = append(keys, serviceKey(name))
	}
	slices.Sort(keys[1:])
	if v.withoutLists == nil {
		v.withoutLists = make(map[string]bool)
	}
	isNew := !v.withoutLists[strings.Join(keys, ",")]
	v.withoutLists[strings.Join(keys, ",")] = true
	if isNew && len(v.withoutLists) == MaxWithoutLists+1 {
		v.Report(path, "Too many different without lists: at most %d are allowed in a policy: use the same list in several destinations", MaxWithoutLists)
	}
}

// serviceKey returns the same text for all spellings of a service.
func serviceKey(name string) string { return strings.ReplaceAll(strings.ToLower(name), "-", "_") }
