package main

import (
	"flag"
	"fmt"
	"io"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

const validateUsage = `
egress-webhook validate gives the webhook's verdict on each policy in files,
without a cluster. FILE is a manifest with any number of objects, or a bare
policy.json; - is standard input. Objects that are no policy ConfigMap are
passed over. Without --ranges-file, names are judged by a compiled-in catalogue.

Usage:
  egress-webhook validate -f FILE... [--ranges-file FILE] [-o text|json]

Examples:
  egress-webhook validate -f policy.yaml
  kustomize build . | egress-webhook validate -f - -o json

Exit status: 0 all valid, 1 a policy is invalid, 2 wrong usage or unreadable input.
`

// verdict is one policy's, as -o json prints it.
type verdict struct {
	File      string          `json:"file"`
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	Valid     bool            `json:"valid"`
	Problems  policy.Problems `json:"problems"`
	Warnings  policy.Problems `json:"warnings"`
}

func validate(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet(program+" validate", flag.ContinueOnError)
	var files cli.Files
	files.AddFlags(flags)
	format := flags.String("o", "text", "output `format`: text or json")
	if status, ok := cli.Parse(flags, args, validateUsage, stdout, stderr); !ok {
		return status
	}
	if err := cli.OneOf(*format, "text", "json"); err != nil {
		cli.Complain(stderr, flags.Name(), err)
		return cli.ExitUsage
	}
	input, status := files.Open(flags, stdin, stderr)
	if status != cli.ExitOK {
		return status
	}
	verdicts := make([]verdict, 0, len(input.Sources))
	for _, source := range input.Sources {
		v := judge(source, input)
		verdicts = append(verdicts, v)
		if !v.Valid {
			status = cli.ExitInvalid
		}
		if *format == "text" {
			printVerdict(stdout, stderr, source, v)
		}
	}
	if *format == "json" {
		return cli.WriteJSON(stdout, stderr, flags.Name(), verdicts, status)
	}
	return status
}

func judge(source cli.Source, input *cli.Input) verdict {
	v := verdict{
		File: source.File, Namespace: source.ConfigMap.Namespace, Name: source.ConfigMap.Name,
		Problems: policy.Problems{}, Warnings: policy.Problems{}, // as [] rather than null
	}
	warnings, problems := netpol.Judge(source.ConfigMap, input.Table, input.Options)
	if problems != nil {
		v.Problems = problems
		return v
	}
	v.Valid = true
	v.Warnings = append(v.Warnings, warnings...)
	return v
}

// printVerdict gives the verdict to stdout and what it rests on to stderr.
func printVerdict(stdout, stderr io.Writer, source cli.Source, v verdict) {
	cli.PrintProblems(stderr, source, "", v.Problems)
	cli.PrintProblems(stderr, source, "Warning: ", v.Warnings)
	if v.Valid {
		fmt.Fprintf(stdout, "%s: valid\n", source)
	} else {
		fmt.Fprintf(stdout, "%s: invalid\n", source)
	}
}
