package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"k8s.io/apimachinery/pkg/util/duration"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
	"egress-agent/pkg/status"
)

// kubectl writes the same words if a value does not exist or is unknown.
const (
	none    = "<none>"
	unknown = "<unknown>"
)

// writeTable writes one row for each policy, in columns as kubectl prints them. A wide table has more columns and
// shortens no cell. If the report has no policies, it writes nothing.
func writeTable(w io.Writer, report *status.Report, wide bool) error {
	if len(report.Policies) == 0 {
		return nil
	}
	var text bytes.Buffer
	columns := tabwriter.NewWriter(&text, 6, 4, 3, ' ', 0)
	heading := []string{"NAMESPACE", "NAME", "STATE", "DESTINATIONS", "CIDRS", "PORT SLOTS", "RANGES", "OTHERS"}
	if wide {
		heading = append(heading, "DEFAULT", "NETWORKPOLICY", "IN FORCE")
	}
	fmt.Fprintln(columns, strings.Join(heading, "\t"))
	for _, p := range report.Policies {
		row := []string{p.Namespace, p.Name, string(p.State), destinationCount(p), strconv.Itoa(p.CIDRs), p.FormatPortSlots(), rangesAge(report.Ranges, p), formatOthers(p, wide)}
		if wide {
			row = append(row, cmp.Or(string(p.DefaultAction), unknown), cmp.Or(p.NetworkPolicy, none), inForce(p))
		}
		for i, cell := range row {
			row[i] = cli.Printable(cell)
		}
		fmt.Fprintln(columns, cli.EscapeCommands(strings.Join(row, "\t")))
	}
	if err := columns.Flush(); err != nil {
		return err
	}
	output := text.String()
	if takesColour(w) {
		output = colourStates(output, report.Policies)
	}
	_, err := io.WriteString(w, output)
	return err
}

// colourStates colours the state in each row of a table. It runs after the alignment of the columns, which would count
// the control sequences as text. The first match is the state: names of namespaces and ConfigMaps have no capitals.
func colourStates(table string, policies []status.Policy) string {
	lines := strings.SplitAfter(table, "\n")
	for i, p := range policies {
		colour := "31" // red
		switch p.State {
		case status.Applied:
			colour = "32" // green
		case status.Pending, status.RangesUnavailable, status.Guarded:
			colour = "33" // yellow
		}
		lines[i+1] = strings.Replace(lines[i+1], string(p.State), "\x1b["+colour+"m"+string(p.State)+"\x1b[0m", 1)
	}
	return strings.Join(lines, "")
}

// destinationCount returns the number of destinations, or a word if the policy is unreadable or allows everything.
func destinationCount(p status.Policy) string {
	switch p.DefaultAction {
	case "":
		return unknown
	case policy.Allow:
		return "everything"
	}
	return strconv.Itoa(len(p.Destinations))
}

// rangesAge returns the age of the AWS ranges, or "<none>" if the policy names no service.
func rangesAge(ranges *status.Ranges, p status.Policy) string {
	namesService := slices.ContainsFunc(p.Destinations, func(d status.Destination) bool { return d.Service != "" })
	switch {
	case !namesService:
		return none
	case ranges == nil:
		return unknown
	}
	return duration.HumanDuration(ranges.Age())
}

// formatOthers returns the number and the names of the other policies. It returns all names if allNames is true, and
// else the first two.
func formatOthers(p status.Policy, allNames bool) string {
	const shownCount = 2
	if len(p.OtherPolicies) == 0 {
		return none
	}
	var names []string
	for i, other := range p.OtherPolicies {
		if i == shownCount && !allNames {
			names = append(names, "...")
			break
		}
		name := other.Name
		if other.AllowsEverything {
			name += "=everything"
		}
		names = append(names, name)
	}
	return fmt.Sprintf("%d (%s)", len(p.OtherPolicies), strings.Join(names, ", "))
}

// inForce returns the NetworkPolicy's annotation about its destinations. The text is untrusted: users with the right to
// edit the NetworkPolicy can write any text there.
func inForce(p status.Policy) string {
	if p.Current == nil || p.Current.Annotations[netpol.DestinationsAnnotation] == "" {
		return none
	}
	return oneLine(p.Current.Annotations[netpol.DestinationsAnnotation])
}

// printReasons prints why policies are not applied, one line for each message: NAMESPACE/NAME: STATE: MESSAGE.
func printReasons(out cli.Output, report *status.Report) {
	for _, p := range report.Policies {
		for _, message := range p.Messages {
			out.Line("%s/%s: %s: %s", p.Namespace, p.Name, p.State, message)
		}
	}
}

// writeTraffic writes one row for each namespace with policies. If the report has no policies, it writes nothing.
func writeTraffic(w io.Writer, report *status.Report, _ bool) error {
	if len(report.Traffic) == 0 {
		return nil
	}
	columns := tabwriter.NewWriter(w, 6, 4, 3, ' ', 0)
	fmt.Fprintln(columns, "NAMESPACE\tFLOWS\tDENIED\tUNUSED")
	for _, t := range report.Traffic {
		fmt.Fprintf(columns, "%s\t%d\t%d\t%d\n", cli.Printable(t.Namespace), t.Flows, len(t.Denied), len(t.Unused))
	}
	return columns.Flush()
}

// printTraffic prints the destinations that would be denied, and the entries that no flow used. It prints the first
// destinations of each namespace, or all if showAll is true.
func printTraffic(out cli.Output, report *status.Report, showAll bool) {
	const maxShown = 10
	for _, t := range report.Traffic {
		for i, d := range t.Denied {
			if i == maxShown && !showAll {
				out.Line("%s: and %d more destinations; -o wide shows all", t.Namespace, len(t.Denied)-maxShown)
				break
			}
			out.Line("%s: would be denied: %s (sources: %d, records: %d)", t.Namespace, d.Destination, d.Sources, d.Records)
		}
		for _, name := range t.Unused {
			out.Line("%s/%s: unused: no connection used it", t.Namespace, name)
		}
	}
}
