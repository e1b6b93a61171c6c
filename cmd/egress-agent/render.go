package main

import (
	"flag"
	"io"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/domains"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/serviceentry"
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
  egress-agent render -f FILE... [--platform FILE...] [--ranges-file FILE]
        [-o yaml|json|serviceentry]
  egress-agent render --platform FILE... [--ranges-file FILE] -o clusternetworkpolicy

Examples:
  egress-agent render -f policy.yaml --ranges-file ip-ranges.json
  kubectl get configmap -n tenant-a egress -o yaml | egress-agent render -f - --ranges-file ip-ranges.json

With --platform, render also prints the base of each platform document for each
Namespace in the files that it governs, and leaves out of the policies what
guardrails close. -o clusternetworkpolicy prints AWS's ClusterNetworkPolicy with
what the documents deny. It also binds the NetworkPolicies that tenants write
themselves. -o serviceentry prints Istio's ServiceEntries with the addresses and TCP
ports of the NetworkPolicies, for a mesh that forwards only to hosts it knows.
With --domains, render also prints the objects that open the names of policies.

Exit status: 0 all rendered, 1 a policy is invalid, 2 wrong usage, unreadable
input, or a service without --ranges-file: render prints the rest of its policy.
`

func render(args []string, stdin io.Reader, stdout, stderr cli.Output) int {
	flags := flag.NewFlagSet(program+" render", flag.ContinueOnError)
	files := cli.Files{Optional: true}
	files.AddFlags(flags)
	files.AddPlatformFlag(flags)
	format := flags.String("o", "yaml", "output `format`: yaml, json, serviceentry or clusternetworkpolicy")
	if status, ok := cli.Parse(flags, args, renderUsage, stdout, stderr); !ok {
		return status
	}
	err := cli.CheckFormat(*format, "yaml", "json", serviceEntryFormat, backstopFormat)
	if err != nil {
		stderr.UsageError(flags.Name(), err)
		return cli.ExitUsage
	}
	input, status := files.Open(flags, stdin, stderr)
	if status != cli.ExitOK {
		return status
	}
	var objects []any
	switch *format {
	case backstopFormat:
		objects, status = renderBackstop(input, stderr)
	case serviceEntryFormat:
		objects, status = renderPolicies(input, stderr)
		objects = serviceEntries(objects, stderr)
	default:
		objects, status = renderPolicies(input, stderr)
		objects = withDomains(objects, input.Options)
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

// Values of -o for objects other than NetworkPolicies.
const (
	backstopFormat     = "clusternetworkpolicy"
	serviceEntryFormat = "serviceentry"
)

// withDomains adds, after each NetworkPolicy, the object that opens its names.
func withDomains(networkPolicies []any, options netpol.Options) []any {
	objects := make([]any, 0, len(networkPolicies))
	for _, object := range networkPolicies {
		objects = append(objects, object)
		if opened, _ := domains.Of(object.(*networkingv1.NetworkPolicy), options); opened != nil { // render made the annotation
			objects = append(objects, opened)
		}
	}
	return objects
}

// serviceEntries returns the ServiceEntries of NetworkPolicies.
func serviceEntries(networkPolicies []any, stderr cli.Output) (objects []any) {
	for _, object := range networkPolicies {
		networkPolicy := object.(*networkingv1.NetworkPolicy)
		entries, notes := serviceentry.Of(networkPolicy)
		for _, note := range notes {
			stderr.Line("%s: note: left out of the ServiceEntries: %s", strings.TrimPrefix(networkPolicy.Namespace+"/"+networkPolicy.Name, "/"), note)
		}
		for _, entry := range entries {
			objects = append(objects, entry)
		}
	}
	return objects
}

// renderPolicies returns the NetworkPolicies of the policies, and then those of the platform documents' bases.
func renderPolicies(input *cli.Input, stderr cli.Output) (objects []any, status int) {
	objects = []any{}
	for _, source := range input.Sources {
		compiled := netpol.CompileConfigMap(source.ConfigMap, input.Inputs(source.ConfigMap.Namespace))
		if compiled.Problems != nil {
			stderr.Problems(source, "", compiled.Problems)
			status = max(status, cli.ExitInvalid)
			continue
		}
		stderr.Problems(source, "Warning: ", append(compiled.Refusals(nil), compiled.Warnings...))
		status = max(status, cli.ReportUnresolved(source.String(), compiled, stderr))
		objects = append(objects, netpol.NetworkPolicyFor(source.ConfigMap, compiled))
	}
	for _, namespace := range input.Platform.Namespaces() {
		for _, document := range input.Platform.Governing(namespace) {
			if document.Base == nil {
				continue
			}
			configMap := netpol.BaseConfigMap(namespace, document)
			compiled := netpol.CompileConfigMap(configMap, input.BaseInputs(document.Name))
			status = max(status, cli.ReportUnresolved(document.Name, compiled, stderr))
			objects = append(objects, netpol.NetworkPolicyFor(configMap, compiled))
		}
	}
	return objects, status
}

// renderBackstop returns a ClusterNetworkPolicy for each platform document that denies anything.
func renderBackstop(input *cli.Input, stderr cli.Output) (objects []any, status int) {
	for _, document := range input.Platform.Documents {
		backstop, err := netpol.Backstop(document, input.Platform.Documents, input.Table, input.Options, netpol.DefaultNamespace)
		switch {
		case err != nil:
			stderr.Line("%s: %v", document.Name, err)
			status = cli.ExitUsage
		case backstop == nil:
			stderr.Line("%s: note: it denies nothing, so it needs no ClusterNetworkPolicy", document.Name)
		default:
			objects = append(objects, backstop)
		}
	}
	if len(input.Platform.Documents) == 0 {
		stderr.Line("no platform document: give it with --platform")
		status = cli.ExitUsage
	}
	return objects, status
}
