package main

import (
	"flag"
	"io"
	"slices"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

const validateUsage = `
egress-webhook validate prints the webhook's verdict on each policy in files,
without a cluster. FILE is a YAML or JSON manifest with any number of objects,
such as the output of Kustomize and Helm, or a bare policy.json. From a folder the
command reads every .yaml, .yml and .json file, also in subfolders, and skips
names that begin with a dot. The FILE - is standard input. The command skips
objects that are not policy ConfigMaps. In a folder it also skips Helm templates,
Kustomize patches and other YAML, with a note. After all other files, it reports
each broken file that looks like a policy. Without --ranges-file it checks names
against a compiled-in catalogue.

Usage:
  egress-webhook validate -f FILE... [--platform FILE...] [--ranges-file FILE] [-o text|json|github]

Examples:
  egress-webhook validate -f policy.yaml
  egress-webhook validate -f deploy/ --ranges-file ip-ranges.json
  kustomize build . | egress-webhook validate -f - -o json
  egress-webhook validate -f . -o github
  egress-webhook validate -f tenants/ --platform platform/

With --platform the command also judges by platform documents, as the webhook
does: FILE is a ConfigMap labelled egress-controller: platform, or a bare
platform.json. The manifests of Namespaces among all files say which documents
govern a policy. The command also prints a verdict on each platform document in
the files of -f.

-o text prints the verdicts, and prints problems and warnings to standard error.
-o json prints a list of {file, namespace, name, valid, problems, warnings}, in
the order read. A problem or warning is {message, path, line, column}: its path in
policy.json and its position in the file. Lines and columns count from 1, columns
in characters. -o github prints GitHub's workflow commands, which annotate the
lines in a pull request.

Exit status: 0 all valid, 1 a policy is invalid, 2 wrong usage or unreadable input.
`

// verdict is the verdict on one policy, in the format of -o json.
type verdict struct {
	File      string              `json:"file"`
	Namespace string              `json:"namespace"`
	Name      string              `json:"name"`
	Valid     bool                `json:"valid"`
	Problems  []positionedProblem `json:"problems"` // never nil, so that JSON has [] instead of null; likewise Warnings
	Warnings  []positionedProblem `json:"warnings"`
}

// positionedProblem is a problem or warning with its position in the file.
type positionedProblem struct {
	policy.Problem
	cli.Position
}

func validate(args []string, stdin io.Reader, stdout, stderr cli.Output) int {
	flags := flag.NewFlagSet(program+" validate", flag.ContinueOnError)
	var files cli.Files
	files.AddFlags(flags)
	files.AddPlatformFlag(flags)
	format := flags.String("o", "text", "output `format`: text, json or github")
	if status, ok := cli.Parse(flags, args, validateUsage, stdout, stderr); !ok {
		return status
	}
	if err := cli.CheckFormat(*format, "text", "json", "github"); err != nil {
		stderr.UsageError(flags.Name(), err)
		return cli.ExitUsage
	}
	input, status := files.Open(flags, stdin, stderr)
	if status != cli.ExitOK {
		return status
	}
	verdicts := make([]verdict, 0, len(input.Sources)+len(input.Platforms))
	for _, source := range slices.Concat(input.Sources, input.Platforms) {
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
		for _, note := range input.Warnings {
			printAnnotation(stdout, "warning", note.File, note.At, note.Message)
		}
		for _, note := range input.Unread {
			printAnnotation(stdout, "error", note.File, note.At, note.Message)
		}
	}
	return input.ReportUnread(stderr, flags.Name(), status)
}

// verdictOf returns the verdict on one policy or platform document.
func verdictOf(source cli.Source, input *cli.Input) verdict {
	var problems, warnings policy.Problems
	if source.IsPlatform() {
		_, warnings, problems = netpol.CompilePlatform(source.ConfigMap, netpol.Inputs{Table: input.Table, Options: input.Options, Now: input.Now})
	} else {
		var compiled *netpol.Compiled
		compiled, problems = input.Compile(source)
		warnings = compiled.Warnings
	}
	return verdict{
		File: source.File, Namespace: source.ConfigMap.Namespace, Name: source.ConfigMap.Name,
		Valid: problems == nil, Problems: withPositions(source, problems), Warnings: withPositions(source, warnings),
	}
}

// withPositions returns the problems with their positions in the file. The result is never nil.
func withPositions(source cli.Source, problems policy.Problems) []positionedProblem {
	result := make([]positionedProblem, len(problems))
	if len(problems) == 0 {
		return result
	}
	positions := source.Positions(problems)
	for i, p := range problems {
		result[i] = positionedProblem{p, positions[i]}
	}
	return result
}

// printVerdict prints the verdict to stdout, and problems and warnings to stderr.
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

// annotate prints GitHub's workflow commands, which annotate lines of a file. If the policy is from standard input, the
// message names the policy, because there is no file.
func annotate(out cli.Output, source cli.Source, level string, problems []positionedProblem) {
	for _, p := range problems {
		if source.FromStdin() {
			printAnnotation(out, level, source.File, p.Position, source.PolicyName()+": "+p.Problem.String())
		} else {
			printAnnotation(out, level, source.File, p.Position, p.Problem.String())
		}
	}
}

// printAnnotation prints one workflow command for a position in a file. It omits the file if it is standard input.
func printAnnotation(out cli.Output, level, file string, position cli.Position, message string) {
	if file == cli.Stdin {
		file = ""
	}
	out.Workflow(level, file, cli.Position{Line: max(position.Line, 1), Column: max(position.Column, 1)}, message)
}
