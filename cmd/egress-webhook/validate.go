package main

import (
	"flag"
	"fmt"
	"io"
	"strings"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

const validateUsage = `
egress-webhook validate gives the webhook's verdict on each policy in files,
without a cluster. FILE is a manifest in YAML or JSON with any number of
objects, such as Kustomize and Helm print, or a bare policy.json; of a folder,
every .yaml, .yml and .json file is read, and those in its folders, but for
names that begin with a dot; - is standard input. Objects that are no policy
ConfigMap are passed over. Without --ranges-file, names are judged by a
compiled-in catalogue.

Usage:
  egress-webhook validate -f FILE... [--ranges-file FILE] [-o text|json|github]

Examples:
  egress-webhook validate -f policy.yaml
  egress-webhook validate -f deploy/ --ranges-file ip-ranges.json
  kustomize build . | egress-webhook validate -f - -o json
  egress-webhook validate -f . -o github

-o text prints a verdict each, and problems and warnings to standard error. -o json
prints a list of {file, namespace, name, valid, problems, warnings}, in the order
read; a problem or warning is {message, path, line, column}: the path in
policy.json, and the place in the file, both from 1, columns in characters. -o
github prints GitHub's workflow commands, which mark the lines in a pull request.

Exit status: 0 all valid, 1 a policy is invalid, 2 wrong usage or unreadable input.
`

// verdict is one policy's, as -o json prints it.
type verdict struct {
	File      string    `json:"file"`
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	Valid     bool      `json:"valid"`
	Problems  []finding `json:"problems"` // [] rather than null, as are Warnings
	Warnings  []finding `json:"warnings"`
}

// finding is a problem or a warning, and where in the file it is.
type finding struct {
	policy.Problem
	cli.Position
}

func validate(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet(program+" validate", flag.ContinueOnError)
	var files cli.Files
	files.AddFlags(flags)
	format := flags.String("o", "text", "output `format`: text, json or github")
	if status, ok := cli.Parse(flags, args, validateUsage, stdout, stderr); !ok {
		return status
	}
	if err := cli.OneOf(*format, "text", "json", "github"); err != nil {
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
		switch *format {
		case "text":
			printVerdict(stdout, stderr, source, v)
		case "github":
			annotate(stdout, source, "error", v.Problems)
			annotate(stdout, source, "warning", v.Warnings)
		}
	}
	if *format == "json" {
		return cli.WriteJSON(stdout, stderr, flags.Name(), verdicts, status)
	}
	return status
}

func judge(source cli.Source, input *cli.Input) verdict {
	warnings, problems := netpol.Judge(source.ConfigMap, input.Table, input.Options)
	return verdict{
		File: source.File, Namespace: source.ConfigMap.Namespace, Name: source.ConfigMap.Name,
		Valid: problems == nil, Problems: findings(source, problems), Warnings: findings(source, warnings),
	}
}

func findings(source cli.Source, problems policy.Problems) []finding {
	found := make([]finding, len(problems))
	if len(problems) == 0 {
		return found
	}
	positions := source.Positions(problems)
	for i, p := range problems {
		found[i] = finding{p, positions[i]}
	}
	return found
}

// printVerdict gives the verdict to stdout and what it rests on to stderr.
func printVerdict(stdout, stderr io.Writer, source cli.Source, v verdict) {
	for _, p := range v.Problems {
		fmt.Fprintf(stderr, "%s: %s\n", source, p.Problem)
	}
	for _, w := range v.Warnings {
		fmt.Fprintf(stderr, "%s: Warning: %s\n", source, w.Problem)
	}
	if v.Valid {
		fmt.Fprintf(stdout, "%s: valid\n", source)
	} else {
		fmt.Fprintf(stdout, "%s: invalid\n", source)
	}
}

// GitHub's escapes for a command's message and for the values before it
// (https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts).
var (
	messageEscapes = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	valueEscapes   = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

// annotate prints workflow commands
// (https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands).
// What was piped in has no file to mark.
func annotate(w io.Writer, source cli.Source, level string, found []finding) {
	for _, f := range found {
		if source.Piped() {
			fmt.Fprintf(w, "::%s::%s\n", level, messageEscapes.Replace(fmt.Sprintf("%s: %s", source.Policy(), f.Problem)))
			continue
		}
		fmt.Fprintf(w, "::%s file=%s,line=%d,col=%d::%s\n", level,
			valueEscapes.Replace(source.File), f.Line, f.Column, messageEscapes.Replace(f.Problem.String()))
	}
}
