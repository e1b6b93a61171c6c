package main

import (
	"cmp"
	"errors"
	"flag"
	"io"
	"slices"
	"strings"
	"time"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/analysis"
	"egress-agent/pkg/audit"
	"egress-agent/pkg/netpol"
)

const auditUsage = `
egress-agent audit prints the history of policies from the audit trails that both
programs write with --audit: who changed what, when and why, and what that opened
and closed.

Usage:
  egress-agent audit [-n NAMESPACE] [--to ADDRESS:PORT[/PROTOCOL]]... [-o text|json] FILE...

Examples:
  egress-agent audit -n tenant-a egress-webhook.log egress-agent.log.gz
  kubectl logs -n egress-system -l app.kubernetes.io/part-of=egress-control --tail=-1 | egress-agent audit -n tenant-a -
  egress-agent audit --to 10.1.0.5:5432 trail.log

FILE is a log, plain or gzip, and - is standard input. Lines that are no audit
entries are skipped, and entries in the JSON of a log shipper are found. --to shows
only what opened or closed a connection. A + is an address that a change opened, a
- one that it closed, a ! a warning. The entries of all files are sorted by time.

Exit status: 0 entries were found, 1 there are none, 2 wrong usage or unreadable
input.
`

func printAudit(args []string, stdin io.Reader, stdout, stderr cli.Output) int {
	flags := flag.NewFlagSet(program+" audit", flag.ContinueOnError)
	namespace := flags.String("n", "", "show only this `namespace`")
	var to cli.Strings
	flags.Var(&to, "to", "show only what opened or closed this `target`, as ADDRESS:PORT or ADDRESS:PORT/PROTOCOL; the default PROTOCOL is TCP (repeatable)")
	format := flags.String("o", "text", "output `format`: text or json")
	if status, ok := cli.Parse(flags, args, auditUsage, stdout, stderr); !ok {
		return status
	}
	err := cli.CheckFormat(*format, "text", "json")
	if flags.NArg() == 0 {
		err = errors.Join(err, errors.New("no input: give a FILE, or - for standard input"))
	}
	var targets []analysis.Target
	for _, text := range to {
		target, parseErr := analysis.ParseTarget(text)
		if parseErr == nil && target.Host != "" {
			parseErr = errors.New("--to takes an address here: " + target.Host)
		}
		err = errors.Join(err, parseErr)
		targets = append(targets, target)
	}
	if err != nil {
		stderr.UsageError(flags.Name(), err)
		return cli.ExitUsage
	}
	entries, status := []audit.Entry{}, cli.ExitOK
	for _, path := range flags.Args() {
		long := 0
		err := openLog(path, stdin, func(log io.Reader) (err error) {
			long, err = audit.Read(log, func(e audit.Entry) {
				isShown := len(targets) == 0 || slices.ContainsFunc(targets, func(t analysis.Target) bool { return e.Has(t.Address, t.Port, t.Protocol) })
				if isShown && (*namespace == "" || e.Namespace == *namespace) {
					entries = append(entries, e)
				}
			})
			return err
		})
		if err != nil {
			stderr.Line("%s: %s: %v", flags.Name(), path, err)
			status = cli.ExitUsage
		}
		if long > 0 {
			stderr.Line("%s: note: %s: lines over 1 MiB, left out: %d", flags.Name(), path, long)
		}
	}
	slices.SortStableFunc(entries, func(a, b audit.Entry) int { return a.Time.Compare(b.Time) })
	if len(entries) == 0 && status == cli.ExitOK {
		stderr.Line("%s: no entries found: run both programs with --audit", flags.Name())
		status = cli.ExitInvalid
	}
	if *format == "json" {
		return stdout.Result(stderr, flags.Name(), entries, status)
	}
	for _, e := range entries {
		printEntry(stdout, e)
	}
	return status
}

// printEntry prints a line for the entry, and one for each set of addresses that it opened or closed.
func printEntry(out cli.Output, e audit.Entry) {
	what := ""
	switch e.Event {
	case audit.Admitted:
		what = "admitted, " + e.Operation + " by " + e.User
	case audit.Deleted:
		what = "NetworkPolicy deleted"
	default:
		what = written(e)
	}
	if e.NewPolicy != "" {
		what += " (policy " + e.NewPolicy[:min(len(e.NewPolicy), 12)] + ")"
	}
	out.Line("%s %s/%s: %s", e.Time.UTC().Format(time.RFC3339), e.Namespace, e.Name, what)
	printOpenings(out, "+", e.Opened, e.OpenedMore)
	printOpenings(out, "-", e.Closed, e.ClosedMore)
	if e.Unknown != "" {
		out.Line("  ? %s", e.Unknown)
	}
	for _, warning := range e.Warnings {
		out.Line("  ! %s", warning)
	}
}

// reasons say in words why the agent updated a NetworkPolicy.
var reasons = map[netpol.Cause]string{
	netpol.CausePolicy:     "the policy changed",
	netpol.CauseOptions:    "the agent's options changed",
	netpol.CauseGuardrails: "a platform document changed",
	netpol.CauseExpiry:     "a destination expired",
	netpol.CauseMetadata:   "its labels, annotations or owners differed",
}

// written says in words what the agent wrote and why. A later version may have causes that are unknown here.
func written(e audit.Entry) string {
	switch cause := netpol.Cause(e.Cause); cause {
	case netpol.CauseMissing:
		return "NetworkPolicy created"
	case netpol.CauseEdited:
		return "NetworkPolicy restored after an edit by " + cmp.Or(e.EditedBy, "somebody")
	case netpol.CauseRanges:
		return "NetworkPolicy updated: the ranges changed; AWS's syncToken is " + cmp.Or(e.Ranges, "unknown")
	default:
		return "NetworkPolicy updated: " + cmp.Or(reasons[cause], e.Cause)
	}
}

func printOpenings(out cli.Output, sign string, openings []audit.Opening, more int) {
	for _, o := range openings {
		ports := "every port"
		if len(o.Ports) > 0 {
			ports = strings.Join(o.Ports, ", ")
		}
		out.Line("  %s %s: %s", sign, strings.Join(o.To, ", "), ports)
	}
	if more > 0 {
		out.Line("  %s and %d more", sign, more)
	}
}
