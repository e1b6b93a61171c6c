package platform

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"egress-agent/pkg/internal/document"
	"egress-agent/pkg/policy"
)

// Parse parses and checks a platform.json of at most policy.MaxDocumentBytes. checkName checks the service and region
// names; if checkName is nil, Parse accepts every name. All problems of a document are reported together, in document
// order. The Document is nil if and only if there are problems.
func Parse(data []byte, checkName policy.NameCheck) (*Document, policy.Problems) {
	if size := document.Size(data); size > policy.MaxDocumentBytes {
		return nil, policy.Problems{{Path: Key, Message: fmt.Sprintf(
			"Platform document too large: %d bytes without white space; at most %d are allowed: use fewer or wider destinations, or split the document into several ConfigMaps",
			size, policy.MaxDocumentBytes)}}
	}
	root, err := document.Parse(data)
	if err != nil {
		return nil, policy.Problems{{Path: Key, Message: "Invalid JSON: " + err.Error()}}
	}
	r := &reader{checkName: checkName}
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
	documentFields    = []string{"namespaces", "allowedDestinations", "guardrails"}
	selectorFields    = []string{"matchLabels", "matchExpressions"}
	requirementFields = []string{"key", "operator", "values"}
	guardrailFields   = []string{"mode", "denied", "within", "require", "maxDays", "reason"}
)

type reader struct {
	document.Checker
	checkName policy.NameCheck
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
			d.Namespaces, d.Selector = r.selector(value, at)
		case "allowedDestinations":
			d.Base = &policy.Policy{
				DefaultAction: policy.Deny,
				Destinations:  policy.ReadDestinations(&r.Checker, value, at, name, r.checkName),
			}
		case "guardrails":
			d.Guardrails = r.guardrails(value, at)
		}
	}
	return d
}

// selector returns the selector of a label selector object. It selects nothing if there are problems.
func (r *reader) selector(n document.Node, path *document.Path) (labels.Selector, metav1.LabelSelector) {
	if !r.CheckKind(n, document.Object, path, "namespaces") {
		return labels.Nothing(), metav1.LabelSelector{}
	}
	var selector metav1.LabelSelector
	for name, value := range r.KnownFields(n, path, selectorFields) {
		at := path.Field(name)
		switch name {
		case "matchLabels":
			selector.MatchLabels = r.matchLabels(value, at)
		case "matchExpressions":
			selector.MatchExpressions = r.matchExpressions(value, at)
		}
	}
	if r.Problems() != nil { // the selector may lack the fields with problems
		return labels.Nothing(), metav1.LabelSelector{}
	}
	result := labels.NewSelector()
	for _, key := range slices.Sorted(maps.Keys(selector.MatchLabels)) {
		result = r.add(result, path.Field("matchLabels"), key, selection.Equals, []string{selector.MatchLabels[key]})
	}
	for i, expression := range selector.MatchExpressions {
		at := path.Field("matchExpressions").Item(i)
		operator, ok := operators[expression.Operator]
		if !ok {
			r.Report(at.Field("operator"), "Invalid operator: %s; must be In, NotIn, Exists or DoesNotExist", document.Sanitize(string(expression.Operator)))
			continue
		}
		result = r.add(result, at, expression.Key, operator, expression.Values)
	}
	return result, selector
}

var operators = map[metav1.LabelSelectorOperator]selection.Operator{
	metav1.LabelSelectorOpIn: selection.In, metav1.LabelSelectorOpNotIn: selection.NotIn,
	metav1.LabelSelectorOpExists: selection.Exists, metav1.LabelSelectorOpDoesNotExist: selection.DoesNotExist,
}

// add adds a requirement to a selector. For an invalid requirement it adds problems.
func (r *reader) add(selector labels.Selector, path *document.Path, key string, operator selection.Operator, values []string) labels.Selector {
	requirement, err := labels.NewRequirement(key, operator, values)
	if err == nil {
		return selector.Add(*requirement)
	}
	problems := []error{err}
	if all, ok := err.(interface{ Errors() []error }); ok {
		problems = all.Errors()
	}
	for _, problem := range problems {
		reason, value := problem.Error(), any(key)
		if detailed := (*field.Error)(nil); errors.As(problem, &detailed) {
			reason, value = detailed.Detail, detailed.BadValue
		}
		reason, _, _ = strings.Cut(reason, " (e.g.")
		r.Report(path, "Invalid selector: %s; %s", document.Sanitize(fmt.Sprint(value)), reason)
	}
	return selector
}

func (r *reader) matchLabels(n document.Node, path *document.Path) map[string]string {
	if !r.CheckKind(n, document.Object, path, "matchLabels") {
		return nil
	}
	matchLabels := make(map[string]string)
	for child := range n.Children {
		at := path.Field(child.Key())
		if _, isDuplicate := matchLabels[child.Key()]; isDuplicate {
			r.Report(at, "Duplicate field: %s", document.Sanitize(child.Key()))
			continue
		}
		if r.CheckKind(child, document.Text, at, "label value") {
			matchLabels[child.Key()] = child.Text()
		}
	}
	return matchLabels
}

func (r *reader) matchExpressions(n document.Node, path *document.Path) []metav1.LabelSelectorRequirement {
	if !r.CheckKind(n, document.List, path, "matchExpressions") {
		return nil
	}
	var expressions []metav1.LabelSelectorRequirement
	for item := range n.Children {
		at := path.Item(len(expressions))
		var expression metav1.LabelSelectorRequirement
		if r.CheckKind(item, document.Object, at, "matchExpressions item") {
			r.RequireField(item, at, "key")
			r.RequireField(item, at, "operator")
			for name, value := range r.KnownFields(item, at, requirementFields) {
				switch name {
				case "key":
					expression.Key = r.text(value, at.Field(name), name)
				case "operator":
					expression.Operator = metav1.LabelSelectorOperator(r.text(value, at.Field(name), name))
				case "values":
					expression.Values = r.texts(value, at.Field(name), name)
				}
			}
		}
		expressions = append(expressions, expression)
	}
	return expressions
}

func (r *reader) text(n document.Node, path *document.Path, name string) string {
	if !r.CheckKind(n, document.Text, path, name) {
		return ""
	}
	return n.Text()
}

// texts returns the strings of a list.
func (r *reader) texts(n document.Node, path *document.Path, name string) []string {
	if !r.CheckKind(n, document.List, path, name) {
		return nil
	}
	var texts []string
	i := -1
	for item := range n.Children {
		i++
		if at := r.ItemPath(path, i); r.CheckKind(item, document.Text, at, name) {
			texts = append(texts, item.Text())
		}
	}
	return texts
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
			g.Denied = policy.ReadDestinations(&r.Checker, value, at, name, r.checkName)
			if value.Kind() == document.List && value.Count() == 0 {
				r.Report(at, "Invalid denied: []; list at least one destination, or omit denied to deny none")
			}
		case "within":
			g.Within = policy.ReadDestinations(&r.Checker, value, at, name, r.checkName)
			if value.Kind() == document.List && value.Count() == 0 && n.Member("reason") == nil {
				r.Report(at, "Invalid within: [] closes everything that tenants open; add a reason to guardrails if you mean that, or omit within")
			}
		case "require":
			g.Require = r.require(value, at)
		case "maxDays":
			r.Report(at, "Invalid maxDays: destinations cannot expire in this version; remove the field")
		case "reason":
			g.Reason = policy.ReadReason(&r.Checker, value, at)
		}
	}
	if !g.Cuts() && len(g.Require) == 0 && n.Member("denied") == nil && n.Member("within") == nil && n.Member("require") == nil {
		r.Report(path, "Invalid guardrails: must have denied, within or require")
	}
	return g
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
	names := r.texts(n, path, "require")
	if n.Kind() == document.List && n.Count() == 0 {
		r.Report(path, "Invalid require: []; list at least one field, or omit require")
	}
	for i, name := range names {
		at := r.ItemPath(path, i)
		switch requirement := Requirement(name); {
		case name == "expires":
			r.Report(at, "Invalid require: destinations cannot expire in this version; remove expires")
		case !slices.Contains(requirements, requirement):
			r.Report(at, "Invalid require: %s; must be ports, regions, reason or deny", document.Sanitize(name))
		case slices.Contains(require, requirement):
			r.Report(at, "Duplicate require: %s", name)
		default:
			require = append(require, requirement)
		}
	}
	return require
}
