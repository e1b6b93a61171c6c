package main

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"time"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/policy"
	"egress-agent/pkg/status"
)

// writeCSV writes one row for each destination of each policy, for spreadsheets. Each row has the time of the report and
// the syncToken of the ranges. A policy without destinations has one row.
func writeCSV(w io.Writer, report *status.Report) error {
	rows := csv.NewWriter(w)
	rows.Write([]string{"made", "ranges", "namespace", "policy", "state", "defaultAction", "pods", "destination", "opens", "ports", "cidrs", "expires", "reason"})
	token := ""
	if report.Ranges != nil {
		token = report.Ranges.SyncToken
	}
	for _, p := range report.Policies {
		row := []string{report.MadeAt.Format(time.RFC3339), token, p.Namespace, p.Name, string(p.State), string(p.DefaultAction), p.PodSelector}
		if len(p.Destinations) == 0 {
			rows.Write(csvCells(append(row, "", opensText(p), "", strconv.Itoa(p.CIDRs), "", "")))
		}
		for _, d := range p.Destinations {
			cidrs, expires := "", ""
			if d.CIDRs != nil {
				cidrs = strconv.Itoa(*d.CIDRs)
			}
			if d.Expires != nil {
				expires = d.Expires.Format(time.RFC3339)
			}
			rows.Write(csvCells(append(row[:len(row):len(row)], d.Name, whereText(d), portsOrEvery(d), cidrs, expires, d.Reason)))
		}
	}
	rows.Flush()
	return rows.Error()
}

// csvCells returns cells that a spreadsheet takes as text. Without the apostrophe it would run a tenant's text that
// begins with one of these characters as a formula.
func csvCells(cells []string) []string {
	for i, cell := range cells {
		cell = cli.Printable(cell)
		if strings.HasPrefix(cell, "=") || strings.HasPrefix(cell, "+") || strings.HasPrefix(cell, "-") || strings.HasPrefix(cell, "@") {
			cell = "'" + cell
		}
		cells[i] = cell
	}
	return cells
}

// opensText says what a policy without destinations opens.
func opensText(p status.Policy) string {
	switch p.DefaultAction {
	case "":
		return unknown
	case policy.Allow:
		return "everything"
	}
	return "only DNS"
}

// whereText says what a destination opens: its CIDR, its service with the regions, or its pods.
func whereText(d status.Destination) string {
	text := d.CIDR + d.Service + d.Peer
	if d.Service != "" && len(d.Regions) == 0 {
		text += " in every region"
	} else if d.Service != "" {
		text += " in " + strings.Join(d.Regions, ", ")
	}
	if left := append(d.Without[:len(d.Without):len(d.Without)], d.Except...); len(left) > 0 {
		text += " without " + strings.Join(left, ", ")
	}
	return text
}

func portsOrEvery(d status.Destination) string {
	if len(d.Ports) == 0 && d.Peer != string(policy.KubeAPIServer) {
		return "every port"
	}
	return strings.Join(d.Ports, ", ")
}

// writeMarkdown writes a summary of the cluster for auditors: the states, what is not in order, the worst first, and
// each policy.
func writeMarkdown(out cli.Output, report *status.Report) {
	out.Markdown("# Egress policies of %s\n\n", report.Cluster)
	ranges := "unknown"
	if report.Ranges != nil {
		ranges = "syncToken " + report.Ranges.SyncToken + ", published " + report.Ranges.Published.Format(time.RFC3339)
	}
	out.Markdown("Made %s. AWS ranges: %s.\n\n| state | policies |\n|---|---|\n", report.MadeAt.Format(time.RFC3339), ranges)
	counts := make(map[status.State]int)
	for _, p := range report.Policies {
		counts[p.State]++
	}
	for _, state := range status.States {
		if counts[state] > 0 {
			out.Markdown("| %s | %d |\n", string(state), counts[state])
		}
	}
	out.Markdown("\n## Findings\n\n| namespace | policy | destination | finding | severity | text |\n|---|---|---|---|---|---|\n")
	for _, r := range report.OpenReports() {
		for _, result := range r.Results {
			if result.Result != status.Pass {
				out.Markdown("| %s | %s | %s | %s | %s | %s |\n", r.Metadata.Namespace, result.Policy, result.Properties["destination"], result.Rule, string(result.Severity), result.Message)
			}
		}
	}
	out.Markdown("\n## Policies\n\n| namespace | policy | state | destination | opens | ports | expires | reason |\n|---|---|---|---|---|---|---|---|\n")
	for _, p := range report.Policies {
		if len(p.Destinations) == 0 {
			out.Markdown("| %s | %s | %s | | %s | | | |\n", p.Namespace, p.Name, string(p.State), opensText(p))
		}
		for _, d := range p.Destinations {
			expires := ""
			if d.Expires != nil {
				expires = policy.FormatExpiry(*d.Expires)
			}
			out.Markdown("| %s | %s | %s | %s | %s | %s | %s | %s |\n", p.Namespace, p.Name, string(p.State), d.Name, whereText(d), portsOrEvery(d), expires, d.Reason)
		}
	}
}
