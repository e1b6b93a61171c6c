package status

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/netpol"
)

// OpenReport is a Report of openreports.io/v1alpha1 (https://github.com/openreports/reports-api) with the fields that
// status fills. Policy Reporter and similar tools read it.
type OpenReport struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        OpenReportMetadata     `json:"metadata"`
	Source          string                 `json:"source"`
	Scope           corev1.ObjectReference `json:"scope"`
	Summary         OpenReportSummary      `json:"summary"`
	Results         []OpenReportResult     `json:"results"`
}

// OpenReportMetadata is the metadata of an OpenReport.
type OpenReportMetadata struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace"`
	Labels    map[string]string `json:"labels"`
}

// OpenReportSummary counts the results by their outcome.
type OpenReportSummary struct {
	Pass  int `json:"pass"`
	Fail  int `json:"fail"`
	Warn  int `json:"warn"`
	Error int `json:"error"`
	Skip  int `json:"skip"`
}

// OpenReportResult is one result.
type OpenReportResult struct {
	Source     string                   `json:"source"`
	Policy     string                   `json:"policy"`
	Rule       string                   `json:"rule"`
	Category   string                   `json:"category"`
	Severity   Severity                 `json:"severity"`
	Result     Outcome                  `json:"result"`
	Scored     bool                     `json:"scored"`
	Message    string                   `json:"message"`
	Resources  []corev1.ObjectReference `json:"resources,omitempty"`
	Properties map[string]string        `json:"properties,omitempty"`
}

// The bounds of an OpenReport, which keep it far below what etcd stores.
const (
	maxReportResults = 1000
	maxReportMessage = 512 // runes
)

// OpenReports returns an OpenReport for each namespace with policies, in the order of the report. An OpenReport has at
// most 1,000 results, the worst; a last one then counts the others. It has no time, so equal states give equal
// OpenReports.
func (r *Report) OpenReports() []OpenReport {
	reports := []OpenReport{}
	for start := 0; start < len(r.Policies); {
		end := start + 1
		for end < len(r.Policies) && r.Policies[end].Namespace == r.Policies[start].Namespace {
			end++
		}
		reports = append(reports, NewOpenReport(r.Policies[start].Namespace, Results(r.Policies[start:end], r.MadeAt)))
		start = end
	}
	return reports
}

// NewOpenReport returns the OpenReport of a namespace. It sorts results, the worst first.
func NewOpenReport(namespace string, results []Result) OpenReport {
	sortResults(results)
	report := OpenReport{
		TypeMeta: metav1.TypeMeta{APIVersion: "openreports.io/v1alpha1", Kind: "Report"},
		Metadata: OpenReportMetadata{netpol.ManagedBy, namespace, map[string]string{netpol.ManagedByLabel: netpol.ManagedBy}},
		Source:   netpol.ManagedBy,
		Scope:    corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Name: namespace},
		Results:  []OpenReportResult{},
	}
	left := len(results) - maxReportResults
	if left > 0 {
		results = results[:maxReportResults-1]
		left++
	}
	for _, result := range results {
		report.add(namespace, result)
	}
	if left > 0 {
		report.add(namespace, Result{Policy: netpol.ManagedBy, Rule: "left-out", Outcome: Skip, Severity: Info, Message: fmt.Sprintf("further results, none of them worse: %d; egress-agent status shows all", left)})
	}
	return report
}

func (r *OpenReport) add(namespace string, result Result) {
	switch result.Outcome {
	case Fail:
		r.Summary.Fail++
	case Warn:
		r.Summary.Warn++
	case Pass:
		r.Summary.Pass++
	default:
		r.Summary.Skip++
	}
	added := OpenReportResult{
		Source: netpol.ManagedBy, Policy: result.Policy, Rule: result.Rule, Category: "egress", Severity: result.Severity, Result: result.Outcome,
		Scored: true, Message: truncate(result.Message, maxReportMessage),
	}
	switch {
	case result.Rule == RuleLeak:
		added.Resources = []corev1.ObjectReference{{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy", Namespace: namespace, Name: result.Policy}}
	case result.Outcome != Skip:
		added.Resources = []corev1.ObjectReference{{APIVersion: "v1", Kind: "ConfigMap", Namespace: namespace, Name: result.Policy}}
	}
	if result.Destination != "" {
		added.Properties = map[string]string{"destination": result.Destination}
	}
	r.Results = append(r.Results, added)
}

// truncate returns at most limit runes of a text.
func truncate(text string, limit int) string {
	runes := []rune(text)
	if len(runes) <= limit {
		return text
	}
	return string(runes[:limit-1]) + "…"
}
