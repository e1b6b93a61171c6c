package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"egress-agent/pkg/internal/document"
)

// The known fields of a label selector, in the order of the documentation.
var (
	selectorFields    = []string{"matchLabels", "matchExpressions"}
	requirementFields = []string{"key", "operator", "values"}
)

// ReadSelector checks a label selector, and adds its problems to checker. field is its name in messages. It returns the
// selector and its form in the API. If there are problems, the selector selects nothing.
func ReadSelector(checker *document.Checker, n document.Node, path *document.Path, field string) (labels.Selector, metav1.LabelSelector) {
	r := selectorReader{checker}
	if !r.CheckKind(n, document.Object, path, field) {
		return labels.Nothing(), metav1.LabelSelector{}
	}
	problemCount := len(r.Problems())
	var selector metav1.LabelSelector
	for name, value := range r.KnownFields(n, path, selectorFields) {
		at := path.Field(name)
		switch name {
		case "matchLabels":
			selector.MatchLabels = r.labels(value, at, name)
		case "matchExpressions":
			selector.MatchExpressions = r.matchExpressions(value, at)
		}
	}
	if len(r.Problems()) > problemCount { // the selector may lack the fields with problems
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
			r.Report(at.Field("operator"), "Invalid operator: %s; must be In, NotIn, Exists or DoesNotExist", Sanitize(string(expression.Operator)))
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

type selectorReader struct{ *document.Checker }

// add adds a requirement to a selector. For an invalid requirement it adds problems.
func (r selectorReader) add(selector labels.Selector, path *document.Path, key string, operator selection.Operator, values []string) labels.Selector {
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
		r.Report(path, "Invalid selector: %s; %s", Sanitize(fmt.Sprint(value)), reason)
	}
	return selector
}

// labels returns the labels of an object, and checks only their kinds.
func (r selectorReader) labels(n document.Node, path *document.Path, name string) map[string]string {
	if !r.CheckKind(n, document.Object, path, name) {
		return nil
	}
	found := make(map[string]string)
	for child := range n.Children {
		at := path.Field(child.Key())
		if _, isDuplicate := found[child.Key()]; isDuplicate {
			r.Report(at, "Duplicate field: %s", Sanitize(child.Key()))
			continue
		}
		if r.CheckKind(child, document.Text, at, "label value") {
			found[child.Key()] = child.Text()
		}
	}
	return found
}

func (r selectorReader) matchExpressions(n document.Node, path *document.Path) []metav1.LabelSelectorRequirement {
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
					expression.Values = ReadTexts(r.Checker, value, at.Field(name), name)
				}
			}
		}
		expressions = append(expressions, expression)
	}
	return expressions
}

func (r selectorReader) text(n document.Node, path *document.Path, name string) string {
	if !r.CheckKind(n, document.Text, path, name) {
		return ""
	}
	return n.Text()
}

// ReadTexts checks a list of strings, and adds its problems to checker. It returns the strings.
func ReadTexts(checker *document.Checker, n document.Node, path *document.Path, name string) []string {
	if !checker.CheckKind(n, document.List, path, name) {
		return nil
	}
	var texts []string
	i := -1
	for item := range n.Children {
		i++
		if at := checker.ItemPath(path, i); checker.CheckKind(item, document.Text, at, name) {
			texts = append(texts, item.Text())
		}
	}
	return texts
}

// pods returns pods with the labels of a destination. pods is nil unless the destination has a namespace.
func (v *validator) pods(pods *Pods, n document.Node, path *document.Path) *Pods {
	r := selectorReader{v.Checker}
	found := r.labels(n, path, "pods")
	for _, key := range slices.Sorted(maps.Keys(found)) {
		r.add(labels.NewSelector(), path, key, selection.Equals, []string{found[key]})
	}
	result := &Pods{Labels: found}
	if pods != nil {
		result.Namespace = pods.Namespace
	}
	return result
}

// namespace returns pods with the namespace of a destination. pods is nil unless the destination has labels.
func (v *validator) namespace(pods *Pods, n document.Node, path *document.Path) *Pods {
	result := &Pods{}
	if pods != nil {
		result.Labels = pods.Labels
	}
	if !v.CheckKind(n, document.Text, path, "namespace") {
		return result
	}
	if result.Namespace = n.Text(); len(validation.IsDNS1123Label(result.Namespace)) > 0 {
		v.Report(path, "Invalid namespace: %s; must be the name of one namespace, such as monitoring", Sanitize(n.Text()))
	}
	return result
}

func (v *validator) entity(n document.Node, path *document.Path) Entity {
	if !v.CheckKind(n, document.Text, path, "entity") {
		return ""
	}
	if entity := Entity(n.Text()); entity != KubeAPIServer {
		v.Report(path, "Invalid entity: %s; must be %s", Sanitize(n.Text()), KubeAPIServer)
	}
	return Entity(n.Text())
}
