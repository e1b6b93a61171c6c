package main

import (
	"errors"
	"flag"
	"io"
	"slices"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/analysis/flows"
	"egress-agent/pkg/awsranges"
)

const diffUsage = `
egress-agent diff shows which addresses a change opens and closes, and through
which destinations. The change is an edit of policies, from --base to -f, or a
change of AWS's ranges, from --ranges-file to --against.

Usage:
  egress-agent diff -f FILE... --base FILE [--ranges-file FILE] [-o text|json|markdown]
  egress-agent diff -f FILE... --ranges-file OLD --against NEW [-o text|json|markdown]
  egress-agent diff -f FILE... --base FILE --flows FILE... [--pods FILE] [--ranges-file FILE] [-o text|json]

Examples:
  git show main:policy.yaml | egress-agent diff -f policy.yaml --base - --ranges-file ip-ranges.json -o markdown
  egress-agent diff -f new/ --base old/ --ranges-file ip-ranges.json
  egress-agent diff -f policy.yaml --ranges-file ip-ranges.json --against ip-ranges-new.json

FILE has the same forms as for render. diff matches policies by namespace and
name, without the hash that Kustomize appends to a name. If both sides are a
single policy.json, diff matches the two. It compares a new or a removed policy
with a policy that allows nothing. But in a namespace without any policy, pods
may connect to everything.

--flows reads logs of connections, as recommend does, and prints those that the
base allows and the edit denies, by destination; the exit status is then 1 if there
are any.

Exit status: 0 compared, equal or not, 1 the old or the new version of a policy
is invalid, 2 wrong usage, unreadable input, or a service without --ranges-file.
`

func diff(args []string, stdin io.Reader, stdout, stderr cli.Output) int {
	flags := flag.NewFlagSet(program+" diff", flag.ContinueOnError)
	var files cli.Files
	files.AddFlags(flags)
	against := flags.String("against", "", "compare with AWS's ip-ranges.json in `FILE`, plain or gzip")
	base := flags.String("base", "", "compare with the policies in `FILE` or folder; - is standard input")
	var logs flowFlags
	logs.addFlags(flags)
	format := flags.String("o", "text", "output `format`: text, json or markdown")
	if status, ok := cli.Parse(flags, args, diffUsage, stdout, stderr); !ok {
		return status
	}
	input, status := files.Open(flags, stdin, stderr)
	if status != cli.ExitOK {
		return status
	}
	err := cli.CheckFormat(*format, "text", "json", "markdown")
	switch {
	case *base != "" && *against != "":
		err = errors.Join(err, errors.New("--base and --against exclude each other: give one of them"))
	case len(logs.files) > 0 && *base == "":
		err = errors.Join(err, errors.New("--flows needs --base: it says which connections the edit would deny"))
	case *base == "" && (files.Policy.RangesFile == "" || *against == ""):
		err = errors.Join(err, errors.New("nothing to compare: give --base FILE, or --ranges-file OLD and --against NEW"))
	}
	if err != nil {
		stderr.UsageError(flags.Name(), err)
		return cli.ExitUsage
	}
	var pairs []versionPair
	newTable := input.Table
	if *base != "" {
		old := cli.ReadPolicies([]string{*base}, stdin, stderr)
		input.Unread = append(old.Unread, input.Unread...)
		if len(old.Sources) == 0 && len(old.Unread) > 0 {
			return input.ReportUnread(stderr, flags.Name(), cli.ExitUsage) // otherwise diff would call every policy new
		}
		if len(logs.files) > 0 {
			return diffFlows(flags.Name(), &logs, old.Sources, input, *format, stdin, stdout, stderr)
		}
		pairs = matchVersions(old.Sources, input.Sources)
	} else {
		if newTable, err = awsranges.ReadFiles(*against, files.Policy.Custom()); err != nil {
			stderr.Line("%s: %v", flags.Name(), err)
			return cli.ExitUsage
		}
		pairs = pairWithItself(input.Sources)
	}
	comparisons, status := compare(pairs, input, newTable, stderr)
	if *format == "json" {
		status = stdout.Result(stderr, flags.Name(), comparisons, status)
	}
	for _, c := range comparisons {
		switch *format {
		case "markdown":
			printMarkdown(stdout, c)
		case "text":
			printComparison(stdout, c)
		}
	}
	return input.ReportUnread(stderr, flags.Name(), status)
}

// diffFlows prints the flows of logs that the old policies allow and the new ones deny, by destination.
func diffFlows(name string, logs *flowFlags, old []cli.Source, input *cli.Input, format string, stdin io.Reader, stdout, stderr cli.Output) int {
	if err := cli.CheckFormat(format, "text", "json"); err != nil {
		stderr.UsageError(name, err)
		return cli.ExitUsage
	}
	found, status, ok := logs.read(name, stdin, stderr)
	both := slices.Concat(old, input.Sources)
	if !ok || !found.checkNamespaces(name, both, stderr) {
		return cli.ExitUsage
	}
	all := []denied{}
	for _, namespace := range namespacesOf(both) {
		before, isOldValid := trafficOf(namespace, old, input, found.cluster, stderr)
		after, isNewValid := trafficOf(namespace, input.Sources, input, found.cluster, stderr)
		if !isOldValid || !isNewValid {
			status = max(status, cli.ExitInvalid)
			continue
		}
		deniedFlows := deniedOf(namespace, found.of(namespace), func(flow flows.Flow) bool { return before.Allows(flow) && !after.Allows(flow) })
		all = append(all, deniedFlows...)
		if format != "text" {
			continue
		}
		for _, d := range deniedFlows {
			stdout.Line("%s: - %s (sources: %d, records: %d)", namespace, d.Destination, d.Sources, d.Records)
		}
		if len(deniedFlows) == 0 {
			stdout.Line("%s: the edit denies no flow that was allowed", namespace)
		}
	}
	if len(all) > 0 {
		status = max(status, cli.ExitInvalid)
	}
	if format == "json" {
		status = stdout.Result(stderr, name, all, status)
	}
	return input.ReportUnread(stderr, name, status)
}
