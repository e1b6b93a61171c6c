package platform

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/labels"

	"egress-agent/pkg/internal/document"
	"egress-agent/pkg/policy"
)

// Parse parses and checks a platform.json of at most policy.MaxDocumentBytes. All problems of a document
// are reported together, in document order. The Document is nil if and only if there are problems.
func Parse(data []byte, names policy.Names) (*Document, policy.Problems) {
	if size := document.Size(data); size > policy.MaxDocumentBytes {
		return nil, policy.Problems{{Path: Key, Message: fmt.Sprintf(
			"Platform document too large: %d bytes without white space; at most %d are allowed: use fewer or wider destinations, or split the document into several ConfigMaps",
			size, policy.MaxDocumentBytes)}}
	}
	root, err := document.Parse(data)
	if err != nil {
		return nil, policy.Problems{{Path: Key, Message: "Invalid JSON: " + err.Error()}}
	}
	r := &reader{names: names}
	d := r.document(root)
	if problems := r.Problems(); problems != nil {
		return nil, problems
	}
	if d.Base != nil {
		d.BaseDocument = baseDocument(data)
	}
	return d, nil
}

// Error returns the problems of a platform document in one line. It is the message of a denied review.
func Error(problems policy.Problems) string {
	return "Platform document validation failed: " + problems.String()
}

// baseDocument returns the base of a valid platform.json as a policy.json. It does not change allowedDestinations.
func baseDocument(data []byte) string {
	var base struct {
		AllowedDestinations json.RawMessage `json:"allowedDestinations"`
	}
	_ = json.Unmarshal(data, &base) // no error: the document is valid
	var compact bytes.Buffer
	compact.WriteString(`{"allowedDestinations":`)
	_ = json.Compact(&compact, base.AllowedDestinations)
	compact.WriteByte('}')
	return compact.String()
}

// The known fields of each object, in the order of the documentation.
var (
	documentFields  = []string{"namespaces", "allowedDestinations", "guardrails"}
	guardrailFields = []string{"mode", "denied", "within", "require", "maxDays", "reason"}
)

type reader struct {
	document.Checker
	names policy.Names
}

func (r *reader) document(n document.Node) *Document {
	d := &Document{Namespaces: labels.Nothing()}
	root := &document.Path{}
	if n.Kind() != document.Object {
		r.Report(document.RootPath(Key), "Invalid platform document: must be an object, not %s", n.Kind())
		return d
	}
	r.RequireField(n, root, "namespaces")
	if n.Member("allowedDestinations") == nil && n.Member("guardrails") == nil {
		r.Report(document.RootPath(Key), "Must specify allowedDestinations, guardrails or both")
	}
	for name, value := range r.KnownFields(n, root, documentFields) {
		at := root.Field(name)
		switch name {
		case "namespaces":
			d.Namespaces, d.Selector = policy.ReadSelector(&r.Checker, value, at, name)
		case "allowedDestinations":
			d.Base = &policy.Policy{
				DefaultAction: policy.Deny,
				Destinations:  policy.ReadDestinations(&r.Checker, value, at, name, r.names),
			}
		case "guardrails":
			d.Guardrails = r.guardrails(value, at)
		}
	}
	return d
}

func (r *reader) guardrails(n document.Node, path *document.Path) Guardrails {
	g := Guardrails{Mode: Enforce}
	if !r.CheckKind(n, document.Object, path, "guardrails") {
		return g
	}
	for name, value := range r.KnownFields(n, path, guardrailFields) {
		at := path.Field(name)
		switch name {
		case "mode":
			g.Mode = r.mode(value, at)
		case "denied":
			g.Denied = policy.ReadDestinations(&r.Checker, value, at, name, r.names)
			for i, entry := range g.Denied {
				if entry.Pods != nil {
					r.Report(at.Item(i), "Invalid denied: pods have no fixed addresses; deny a cidr, or permit other destinations with within")
				}
				if entry.Domain != "" {
					r.Report(at.Item(i), "Invalid denied: a domain has no fixed addresses; deny a cidr, or permit other destinations with within")
				}
			}
			r.checkEntries(g.Denied, at)
			if value.Kind() == document.List && value.Count() == 0 {
				r.Report(at, "Invalid denied: []; list at least one destination, or omit denied to deny none")
			}
		case "within":
			g.Within = policy.ReadDestinations(&r.Checker, value, at, name, r.names)
			r.checkEntries(g.Within, at)
			if value.Kind() == document.List && value.Count() == 0 && n.Member("reason") == nil {
				r.Report(at, "Invalid within: [] closes everything that tenants open; add a reason to guardrails if you mean that, or omit within")
			}
		case "require":
			g.Require = r.require(value, at)
		case "maxDays":
			g.MaxDays = r.maxDays(value, at)
		case "reason":
			g.Reason = policy.ReadReason(&r.Checker, value, at)
		}
	}
	isEmpty := true
	for _, name := range []string{"denied", "within", "require", "maxDays"} {
		isEmpty = isEmpty && n.Member(name) == nil
	}
	if isEmpty {
		r.Report(path, "Invalid guardrails: must have denied, within, require or maxDays")
	}
	return g
}

// checkEntries reports fields of entries that guardrails cannot have.
func (r *reader) checkEntries(entries []policy.Destination, path *document.Path) {
	for i, entry := range entries {
		if entry.Entity != "" {
			r.Report(path.Item(i), "Invalid entity: guardrails cannot have %s; list its addresses as cidr", document.Sanitize(string(entry.Entity)))
		}
		if !entry.Expires.IsZero() {
			r.Report(path.Item(i).Field("expires"), "Invalid expires: a guardrail cannot expire; remove expires")
		}
	}
}

// maxDays returns a number of days; 0 if there is a problem.
func (r *reader) maxDays(n document.Node, path *document.Path) int {
	const limit = 3650
	if !r.CheckKind(n, document.Number, path, "maxDays") {
		return 0
	}
	days, err := strconv.Atoi(n.Text())
	if err != nil || days < 1 || days > limit {
		r.Report(path, "Invalid maxDays: %s; must be a whole number from 1 to %d", document.Sanitize(n.Text()), limit)
		return 0
	}
	return days
}

func (r *reader) mode(n document.Node, path *document.Path) Mode {
	if !r.CheckKind(n, document.Text, path, "mode") {
		return Enforce
	}
	mode := Mode(n.Text())
	if mode != Enforce && mode != Warn {
		r.Report(path, "Invalid mode: %s; must be enforce or warn", document.Sanitize(n.Text()))
	}
	return mode
}

func (r *reader) require(n document.Node, path *document.Path) []Requirement {
	var require []Requirement
	names := policy.ReadTexts(&r.Checker, n, path, "require")
	if n.Kind() == document.List && n.Count() == 0 {
		r.Report(path, "Invalid require: []; list at least one field, or omit require")
	}
	for i, name := range names {
		at := r.ItemPath(path, i)
		switch requirement := Requirement(name); {
		case !slices.Contains(requirements, requirement):
			r.Report(at, "Invalid require: %s; must be ports, regions, reason, expires or deny", document.Sanitize(name))
		case slices.Contains(require, requirement):
			r.Report(at, "Duplicate require: %s", name)
		default:
			require = append(require, requirement)
		}
	}
	return require
}
