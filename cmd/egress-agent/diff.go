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
egress-agent diff says what another ip-ranges document opens and closes in the
policies in files, address for address and entry for entry.

Usage:
  egress-agent diff -f FILE... --ranges-file OLD --against NEW [-o text|json]

Examples:
  egress-agent diff -f policy.yaml --ranges-file ip-ranges.json --against ip-ranges-new.json

Exit status: 0 compared, whatever the difference, 1 a policy is invalid, 2 wrong
usage or unreadable input.
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
	format := flags.String("o", "text", "output `format`: text or json")
	if status, ok := cli.Parse(flags, args, diffUsage, stdout, stderr); !ok {
		return status
	}
	input, status := files.Open(flags, stdin, stderr)
	if status != cli.ExitOK {
		return status
	}
	err := cli.OneOf(*format, "text", "json")
	if files.Rules.RangesFile == "" || *against == "" {
		err = errors.Join(err, errors.New("nothing to compare: give --ranges-file OLD and --against NEW"))
	}
	if err != nil {
		cli.Complain(stderr, flags.Name(), err)
		return cli.ExitUsage
	}
	recent, err := awsranges.ReadFiles(*against, files.Rules.CustomRanges...)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", flags.Name(), err)
		return cli.ExitUsage
	}
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
		if *format == "text" {
			printChanges(stdout, source, changes)
		}
	}
	if *format == "json" {
		return cli.WriteJSON(stdout, stderr, flags.Name(), differences, status)
	}
	return status
}

func printChanges(w io.Writer, source cli.Source, changes []netpol.Change) {
	if len(changes) == 0 {
		fmt.Fprintf(w, "%s: unchanged\n", source)
	}
	for _, change := range changes {
		for _, prefix := range change.Added {
			fmt.Fprintf(w, "%s: %s (%s): + %s\n", source, change.Name, change.Path, prefix)
		}
		for _, prefix := range change.Removed {
			fmt.Fprintf(w, "%s: %s (%s): - %s\n", source, change.Name, change.Path, prefix)
		}
	}
}
