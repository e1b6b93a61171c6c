package main

import (
	"errors"
	"flag"
	"io"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/awsranges"
)

const diffUsage = `
egress-agent diff shows which addresses a change opens and closes, and through
which destinations. The change is an edit of policies, from --base to -f, or a
change of AWS's ranges, from --ranges-file to --against.

Usage:
  egress-agent diff -f FILE... --base FILE [--ranges-file FILE] [-o text|json|markdown]
  egress-agent diff -f FILE... --ranges-file OLD --against NEW [-o text|json|markdown]

Examples:
  git show main:policy.yaml | egress-agent diff -f policy.yaml --base - --ranges-file ip-ranges.json -o markdown
  egress-agent diff -f new/ --base old/ --ranges-file ip-ranges.json
  egress-agent diff -f policy.yaml --ranges-file ip-ranges.json --against ip-ranges-new.json

FILE has the same forms as for render. diff matches policies by namespace and
name, without the hash that Kustomize appends to a name. If both sides are a
single policy.json, diff matches the two. It compares a new or a removed policy
with a policy that allows nothing. But in a namespace without any policy, pods
may connect to everything.

Exit status: 0 compared, equal or not, 1 the old or the new version of a policy
is invalid, 2 wrong usage, unreadable input, or a service without --ranges-file.
`

func diff(args []string, stdin io.Reader, stdout, stderr cli.Output) int {
	flags := flag.NewFlagSet(program+" diff", flag.ContinueOnError)
	var files cli.Files
	files.AddFlags(flags)
	against := flags.String("against", "", "compare with AWS's ip-ranges.json in `FILE`, plain or gzip")
	base := flags.String("base", "", "compare with the policies in `FILE` or folder; - is standard input")
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
