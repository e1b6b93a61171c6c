package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"

	"gopkg.in/yaml.v3"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/netpol"
)

const renderUsage = `
egress-agent render prints the NetworkPolicies that the agent would write for
the policies in files, without a cluster. FILE is a manifest in YAML or JSON with
any number of objects, or a bare policy.json; of a folder, every .yaml, .yml and
.json file is read, and those in its folders, but for names that begin with a
dot; - is standard input. Objects that are no policy ConfigMap are passed over.

Usage:
  egress-agent render -f FILE... [--ranges-file FILE] [-o yaml|json]

Examples:
  egress-agent render -f policy.yaml --ranges-file ip-ranges.json
  kubectl get configmap -n tenant-a egress -o yaml | egress-agent render -f - --ranges-file ip-ranges.json

Exit status: 0 all rendered, 1 a policy is invalid, 2 wrong usage, unreadable
input, or a service without --ranges-file: the rest of its policy is printed.
`

func render(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet(program+" render", flag.ContinueOnError)
	var files cli.Files
	files.AddFlags(flags)
	format := flags.String("o", "yaml", "output `format`: yaml or json")
	if status, ok := cli.Parse(flags, args, renderUsage, stdout, stderr); !ok {
		return status
	}
	if err := cli.OneOf(*format, "yaml", "json"); err != nil {
		cli.Complain(stderr, flags.Name(), err)
		return cli.ExitUsage
	}
	input, status := files.Open(flags, stdin, stderr)
	if status != cli.ExitOK {
		return status
	}
	objects := []*networkingv1.NetworkPolicy{}
	for _, source := range input.Sources {
		result, problems := netpol.Evaluate(source.ConfigMap, input.Table, input.Options)
		if problems != nil {
			cli.PrintProblems(stderr, source, "", problems)
			status = max(status, cli.ExitInvalid)
			continue
		}
		cli.PrintProblems(stderr, source, "Warning: ", result.Warnings)
		for _, name := range result.Unresolved {
			fmt.Fprintf(stderr, "%s: %s is left out: its AWS ranges are not known; give --ranges-file\n", source, name)
			status = cli.ExitUsage
		}
		objects = append(objects, netpol.Object(source.ConfigMap, result))
	}
	if *format == "json" {
		return cli.WriteJSON(stdout, stderr, flags.Name(), map[string]any{"apiVersion": "v1", "kind": "List", "items": objects}, status)
	}
	if err := writeYAML(stdout, objects); err != nil {
		cli.Complain(stderr, flags.Name(), err)
		return cli.ExitUsage
	}
	return status
}

// writeYAML writes one document an object. Kubernetes' types say their field names for JSON, and JSON
// is YAML: so they are encoded as that, and written in block style.
func writeYAML(w io.Writer, objects []*networkingv1.NetworkPolicy) error {
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	for _, object := range objects {
		encoded, err := json.Marshal(object)
		if err != nil {
			return err
		}
		var node yaml.Node
		if err := yaml.Unmarshal(encoded, &node); err != nil {
			return err
		}
		blockStyle(&node)
		if err := encoder.Encode(&node); err != nil {
			return err
		}
	}
	if len(objects) == 0 {
		return nil // an encoder without documents cannot be closed
	}
	return encoder.Close()
}

func blockStyle(node *yaml.Node) {
	node.Style = 0
	for _, child := range node.Content {
		blockStyle(child)
	}
}
