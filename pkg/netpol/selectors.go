package netpol

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// FormatSelector returns a selector for a message, such as "app=web,tier in (front)".
func FormatSelector(selector metav1.LabelSelector) string {
	return metav1.FormatLabelSelector(&selector)
}

// maySelectSamePod reports whether labels may exist that both selectors select. It returns false only if two
// requirements on one label exclude each other.
func maySelectSamePod(a, b metav1.LabelSelector) bool {
	first, err := metav1.LabelSelectorAsSelector(&a)
	if err != nil {
		return true
	}
	second, err := metav1.LabelSelectorAsSelector(&b)
	if err != nil {
		return true
	}
	firstRequirements, _ := first.Requirements()
	secondRequirements, _ := second.Requirements()
	for _, x := range firstRequirements {
		for _, y := range secondRequirements {
			if x.Key() == y.Key() && (excludes(x, y) || excludes(y, x)) {
				return false
			}
		}
	}
	return true
}

// excludes reports whether no value, and no missing label, meets both requirements. x must be the stricter one of a
// kind.
func excludes(x, y labels.Requirement) bool {
	hasValue := func(r labels.Requirement) bool {
		return r.Operator() == selection.In || r.Operator() == selection.Equals
	}
	switch {
	case hasValue(x):
		return !slices.ContainsFunc(x.ValuesUnsorted(), func(value string) bool { return y.Matches(labels.Set{x.Key(): value}) })
	case x.Operator() == selection.DoesNotExist:
		return hasValue(y) || y.Operator() == selection.Exists
	}
	return false
}
