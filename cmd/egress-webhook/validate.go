package main

import (
	"flag"
	"io"

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
ConfigMap are passed over, and so are, in a folder, Helm templates, Kustomize
patches and the like, with a note. A broken file that looks like a policy is an
error after all the others. Without --ranges-file, names are judged by a
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
	File      string              `json:"file"`
	Namespace string              `json:"namespace"`
	Name      string              `json:"name"`
	Valid     bool                `json:"valid"`
	Problems  []positionedProblem `json:"problems"` // [] rather than null, as are Warnings
	Warnings  []positionedProblem `json:"warnings"`
}

// positionedProblem is a problem or a warning, and where in the file it is.
type positionedProblem struct {
	policy.Problem
	cli.Position
}

func validate(args []string, stdin io.Reader, stdout, stderr cli.Output) int {
	flags := flag.NewFlagSet(program+" validate", flag.ContinueOnError)
	var files cli.Files
	files.AddFlags(flags)
	format := flags.String("o", "text", "output `format`: text, json or github")
	if status, ok := cli.Parse(flags, args, validateUsage, stdout, stderr); !ok {
		return status
	}
	if err := cli.CheckFormat(*format, "text", "json", "github"); err != nil {
		stderr.Complain(flags.Name(), err)
		return cli.ExitUsage
	}
	input, status := files.Open(flags, stdin, stderr)
	if status != cli.ExitOK {
		return status
	}
	verdicts := make([]verdict, 0, len(input.Sources))
	for _, source := range input.Sources {
		v := verdictOf(source, input)
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
	switch *format {
	case "json":
		status = stdout.Result(stderr, flags.Name(), verdicts, status)
	case "github":
		for _, remark := range input.Warnings {
			mark(stdout, "warning", remark.File, remark.At, remark.Message)
		}
		for _, remark := range input.Unread {
			mark(stdout, "error", remark.File, remark.At, remark.Message)
		}
	}
	return input.Report(stderr, flags.Name(), status)
}

func verdictOf(source cli.Source, input *cli.Input) verdict {
	compiled := netpol.CompileConfigMap(source.ConfigMap, netpol.Inputs{Table: input.Table, Options: input.Options})
	return verdict{
		File: source.File, Namespace: source.ConfigMap.Namespace, Name: source.ConfigMap.Name,
		Valid: compiled.Problems == nil, Problems: findings(source, compiled.Problems), Warnings: findings(source, compiled.Warnings),
	}
}

func findings(source cli.Source, problems policy.Problems) []positionedProblem {
	found := make([]positionedProblem, len(problems))
	if len(problems) == 0 {
		return found
	}
	positions := source.Positions(problems)
	for i, p := range problems {
		found[i] = positionedProblem{p, positions[i]}
	}
	return found
}

// printVerdict gives the verdict to stdout and what it rests on to stderr.
func printVerdict(stdout, stderr cli.Output, source cli.Source, v verdict) {
	for _, p := range v.Problems {
		stderr.Line("%s: %s", source, p.Problem)
	}
	for _, w := range v.Warnings {
		stderr.Line("%s: Warning: %s", source, w.Problem)
	}
	if v.Valid {
		stdout.Line("%s: valid", source)
	} else {
		stdout.Line("%s: invalid", source)
	}
}

// annotate prints GitHub's workflow commands, which mark the lines of a file. What was piped in has no file to mark.
func annotate(out cli.Output, source cli.Source, level string, found []positionedProblem) {
	for _, f := range found {
		if source.FromStdin() {
			mark(out, level, source.File, f.Position, source.PolicyName()+": "+f.Problem.String())
		} else {
			mark(out, level, source.File, f.Position, f.Problem.String())
		}
	}
}

func mark(out cli.Output, level, file string, at cli.Position, message string) {
	if file == cli.Stdin {
		file = ""
	}
	out.Workflow(level, file, cli.Position{Line: max(at.Line, 1), Column: max(at.Column, 1)}, message)
}
