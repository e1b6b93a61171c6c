package main

import (
	"errors"
	"flag"
	"fmt"
	"io"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
)

const diffUsage = `
egress-agent diff says what a change opens and closes, address for address, and by
which entries: a change of the policies in files, from those in --base, or a change
of AWS's ranges, from --ranges-file to --against.

Usage:
  egress-agent diff -f FILE... --base FILE [--ranges-file FILE] [-o text|json|markdown]
  egress-agent diff -f FILE... --ranges-file OLD --against NEW [-o text|json|markdown]

Examples:
  git show main:policy.yaml | egress-agent diff -f policy.yaml --base - --ranges-file ip-ranges.json -o markdown
  egress-agent diff -f new/ --base old/ --ranges-file ip-ranges.json
  egress-agent diff -f policy.yaml --ranges-file ip-ranges.json --against ip-ranges-new.json

FILE is as for render. Policies are matched by namespace and name, and a lone
policy.json with another. What is new is compared with a policy that allows
nothing, as is what was removed; where no policy is left in a namespace, its pods
may connect to everything.

Exit status: 0 compared, whatever the difference, 1 a policy is invalid, 2 wrong
usage, unreadable input, or a service without --ranges-file.
`

// difference is one policy's, as -o json prints it.
type difference struct {
	File      string          `json:"file"`
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	Changes   []netpol.Change `json:"changes"`
}

func diff(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet(program+" diff", flag.ContinueOnError)
	var files cli.Files
	files.AddFlags(flags)
	against := flags.String("against", "", "compare with AWS's ip-ranges.json in `FILE`, plain or gzip")
	base := flags.String("base", "", "compare with the version of the policies in `FILE`, or folder; - is standard input")
	format := flags.String("o", "text", "output `format`: text, json or markdown")
	if status, ok := cli.Parse(flags, args, diffUsage, stdout, stderr); !ok {
		return status
	}
	input, status := files.Open(flags, stdin, stderr)
	if status != cli.ExitOK {
		return status
	}
	err := cli.OneOf(*format, "text", "json", "markdown")
	switch {
	case *base != "" && *against != "":
		err = errors.Join(err, errors.New("two comparisons at once: give --base or --against"))
	case *base == "" && (files.Rules.RangesFile == "" || *against == ""):
		err = errors.Join(err, errors.New("nothing to compare: give --base FILE, or --ranges-file OLD and --against NEW"))
	}
	if err != nil {
		cli.Complain(stderr, flags.Name(), err)
		return cli.ExitUsage
	}
	if *base != "" {
		return diffBase(flags.Name(), *base, *format, input, stdin, stdout, stderr)
	}
	return diffRanges(flags.Name(), *against, *format, &files, input, stdout, stderr)
}

// diffBase compares two versions of policies.
func diffBase(name, base, format string, input *cli.Input, stdin io.Reader, stdout, stderr io.Writer) int {
	sources, err := cli.ReadPolicies([]string{base}, stdin, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return cli.ExitUsage
	}
	comparisons, status := compare(sources, input, stderr)
	if format == "json" {
		return cli.WriteJSON(stdout, stderr, name, comparisons, status)
	}
	for _, c := range comparisons {
		if format == "markdown" {
			markdownComparison(stdout, c)
		} else {
			printComparison(stdout, c)
		}
	}
	return status
}

// diffRanges compares what two documents of AWS's make of the same policies.
func diffRanges(name, against, format string, files *cli.Files, input *cli.Input, stdout, stderr io.Writer) int {
	recent, err := awsranges.ReadFiles(against, files.Rules.CustomRanges...)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return cli.ExitUsage
	}
	status := cli.ExitOK
	differences := []difference{}
	for _, source := range input.Sources {
		p, problems := netpol.Read(source.ConfigMap, input.Table)
		if problems != nil {
			cli.PrintProblems(stderr, source, "", problems)
			status = cli.ExitInvalid
			continue
		}
		changes := netpol.Diff(p, input.Table, recent, input.Options.Family)
		differences = append(differences, difference{source.File, source.ConfigMap.Namespace, source.ConfigMap.Name, changes})
		switch format {
		case "text":
			printChanges(stdout, source, changes)
		case "markdown":
			markdownChanges(stdout, source, changes)
		}
	}
	if format == "json" {
		return cli.WriteJSON(stdout, stderr, name, differences, status)
	}
	return status
}

func printChanges(w io.Writer, source cli.Source, changes []netpol.Change) {
	if len(changes) == 0 {
		fmt.Fprintf(w, "%s: unchanged\n", source)
	}
	for _, change := range changes {
		for _, prefix := range change.Added {
			fmt.Fprintf(w, "%s: %s: + %s\n", source, blamed(change.Name, change.Path), prefix)
		}
		for _, prefix := range change.Removed {
			fmt.Fprintf(w, "%s: %s: - %s\n", source, blamed(change.Name, change.Path), prefix)
		}
	}
}
