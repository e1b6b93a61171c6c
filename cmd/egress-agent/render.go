package main

import (
	"flag"
	"io"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/netpol"
)

const renderUsage = `
egress-agent render prints the NetworkPolicies that the agent would write for
the policies in files. It needs no cluster.

FILE is a manifest in YAML or JSON with any number of objects, a bare
policy.json, a folder, or - for standard input. render reads every .yaml, .yml
and .json file in a folder and its subfolders, except names that begin with a
dot. It skips objects that are not policy ConfigMaps. In a folder it also skips
Helm templates, Kustomize patches and similar files, and prints a note. If a file
looks like a policy but cannot be parsed, render reports it after all the others.

Usage:
  egress-agent render -f FILE... [--ranges-file FILE] [-o yaml|json]

Examples:
  egress-agent render -f policy.yaml --ranges-file ip-ranges.json
  kubectl get configmap -n tenant-a egress -o yaml | egress-agent render -f - --ranges-file ip-ranges.json

Exit status: 0 all rendered, 1 a policy is invalid, 2 wrong usage, unreadable
input, or a service without --ranges-file: render prints the rest of its policy.
`

func render(args []string, stdin io.Reader, stdout, stderr cli.Output) int {
	flags := flag.NewFlagSet(program+" render", flag.ContinueOnError)
	var files cli.Files
	files.AddFlags(flags)
	format := flags.String("o", "yaml", "output `format`: yaml or json")
	if status, ok := cli.Parse(flags, args, renderUsage, stdout, stderr); !ok {
		return status
	}
	err := cli.CheckFormat(*format, "yaml", "json")
	if err != nil {
		stderr.UsageError(flags.Name(), err)
		return cli.ExitUsage
	}
	input, status := files.Open(flags, stdin, stderr)
	if status != cli.ExitOK {
		return status
	}
	objects := []any{}
	for _, source := range input.Sources {
		compiled := netpol.CompileConfigMap(source.ConfigMap, netpol.Inputs{Table: input.Table, Options: input.Options})
		if compiled.Problems != nil {
			stderr.Problems(source, "", compiled.Problems)
			status = max(status, cli.ExitInvalid)
			continue
		}
		stderr.Problems(source, "Warning: ", compiled.Warnings)
		for _, name := range compiled.Unresolved {
			stderr.Line("%s: %s is left out: no AWS ranges are loaded; give --ranges-file", source, name)
			status = cli.ExitUsage
		}
		objects = append(objects, netpol.NetworkPolicyFor(source.ConfigMap, compiled))
	}
	if *format == "json" {
		err = stdout.JSON(map[string]any{"apiVersion": "v1", "kind": "List", "items": objects})
	} else {
		err = stdout.YAML(objects...)
	}
	if err != nil {
		stderr.UsageError(flags.Name(), err)
		return cli.ExitUsage
	}
	return input.ReportUnread(stderr, flags.Name(), status)
}
