package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/analysis"
	"egress-agent/pkg/analysis/flows"
	"egress-agent/pkg/netpol"
)

const explainUsage = `
egress-agent explain shows which destinations of the policies in files allow a
connection, and through which published prefix. For a denied connection it shows
the closest destinations.

Usage:
  egress-agent explain -f FILE... --to ADDRESS|HOST:PORT[/PROTOCOL]...
        [--platform FILE...] [--ranges-file FILE] [-o text|json]
  egress-agent explain -f FILE... --flows FILE... [--pods FILE] [--platform FILE...]
        [--ranges-file FILE] [-o text|json]

Examples:
  egress-agent explain -f policy.yaml --to 10.1.0.5:5432
  egress-agent explain -f policy.yaml --to [2001:db8::1]:53/UDP --to 198.18.0.1:443 --ranges-file ip-ranges.json
  egress-agent explain -f policy.yaml --to sts.us-east-1.amazonaws.com:443 --ranges-file ip-ranges.json

A HOST is looked up where the command runs, and each of its addresses answered.
--flows reads logs of connections, as recommend does, and prints those that the
policies would deny, by destination.
Policies add up: a connection is allowed in a namespace if any of its policies
allows it. With --platform, the answers also name the guardrail of a platform
document that closes a connection, and the base that opens one. -o json prints a
list with one item for each policy and address, in order: {file, namespace, name,
to, allowed, reasons, nearest, podSelector}.

Exit status: 0 every namespace of the files allows every --to, 1 a namespace
denies a --to, or a policy is invalid, 2 wrong usage or unreadable input.
`

// answer says whether one policy allows one target. -o json prints it.
type answer struct {
	File      string `json:"file"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	To        string `json:"to"`
	analysis.Explanation
}

func explain(args []string, stdin io.Reader, stdout, stderr cli.Output) int {
	flags := flag.NewFlagSet(program+" explain", flag.ContinueOnError)
	var files cli.Files
	files.AddFlags(flags)
	files.AddPlatformFlag(flags)
	var to cli.Strings
	flags.Var(&to, "to", "the `target` of the connection, as ADDRESS:PORT, HOST:PORT or either with /PROTOCOL; the default PROTOCOL is TCP (repeatable)")
	var logs flowFlags
	logs.addFlags(flags)
	format := flags.String("o", "text", "output `format`: text or json")
	if status, ok := cli.Parse(flags, args, explainUsage, stdout, stderr); !ok {
		return status
	}
	input, status := files.Open(flags, stdin, stderr)
	if status != cli.ExitOK {
		return status
	}
	if len(logs.files) > 0 {
		if len(to) > 0 {
			stderr.UsageError(flags.Name(), errors.New("--to and --flows exclude each other: give one of them"))
			return cli.ExitUsage
		}
		return explainFlows(flags.Name(), &logs, input, *format, stdin, stdout, stderr)
	}
	targets, err := parseTargets(to, resolveHost, input.Options.Domains.IsOn(), stderr)
	if err := errors.Join(err, cli.CheckFormat(*format, "text", "json")); err != nil {
		stderr.UsageError(flags.Name(), err)
		return cli.ExitUsage
	}
	type connection struct {
		namespace string
		target    analysis.Target
	}
	answers, allowed := []answer{}, make(map[connection]bool)
	for _, source := range input.Sources {
		compiled := netpol.CompileConfigMap(source.ConfigMap, input.Inputs(source.ConfigMap.Namespace))
		if compiled.Problems != nil {
			stderr.Problems(source, "", compiled.Problems)
			status = cli.ExitInvalid
			continue
		}
		for _, target := range targets {
			e := analysis.Explain(compiled.Policy, input.Inputs(source.ConfigMap.Namespace), target)
			e = analysis.ExplainPlatform(e, input.Platform.Governing(source.ConfigMap.Namespace), input.Inputs(""), target)
			key := connection{source.ConfigMap.Namespace, target}
			allowed[key] = allowed[key] || e.Allowed
			answers = append(answers, answer{source.File, source.ConfigMap.Namespace, source.ConfigMap.Name, target.String(), e})
			if *format == "text" {
				printExplanation(stdout, source, target, e)
			}
		}
	}
	for _, ok := range allowed {
		if !ok {
			status = cli.ExitInvalid
		}
	}
	if *format == "json" {
		status = stdout.Result(stderr, flags.Name(), answers, status)
	}
	return input.ReportUnread(stderr, flags.Name(), status)
}

// parseTargets parses values, the values of --to. resolve returns the addresses of a host, and each address becomes a
// target. If the cluster opens names, a host without addresses becomes a target too. parseTargets joins the errors of
// the values. If values is empty, it returns an error.
func parseTargets(values []string, resolve func(host string) ([]netip.Addr, error), opensNames bool, stderr cli.Output) ([]analysis.Target, error) {
	if len(values) == 0 {
		values = []string{""}
	}
	var targets []analysis.Target
	var errs []error
	for _, text := range values {
		target, err := analysis.ParseTarget(text)
		if err == nil && target.Host == "" {
			targets = append(targets, target)
			continue
		}
		var addresses []netip.Addr
		if err == nil {
			addresses, err = resolve(target.Host)
		}
		if err != nil && target.Host != "" && opensNames {
			stderr.Line("%s explain: note: only destinations with a domain can answer: %v", program, err)
			targets = append(targets, target)
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("invalid --to: %w", err))
			continue
		}
		stderr.Line("%s explain: note: %s has %d addresses here and now; names move, and pods may get others", program, target.Host, len(addresses))
		for _, address := range addresses {
			target.Address = address
			targets = append(targets, target)
		}
	}
	return targets, errors.Join(errs...)
}

// resolveHost returns the addresses of a host name, sorted, as the resolver of this machine knows them.
func resolveHost(host string) ([]netip.Addr, error) {
	const timeout = 10 * time.Second
	if strings.HasSuffix(host, ".svc") || strings.Contains(host, ".svc.") {
		return nil, fmt.Errorf("%s is a Service, whose name only pods can look up; give its cluster IP, which kubectl get service shows", host)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("cannot look up %s: %w; give an address instead", host, err)
	}
	for i := range addresses {
		addresses[i] = addresses[i].Unmap()
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	return slices.Compact(addresses), nil
}

func printExplanation(out cli.Output, source cli.Source, target analysis.Target, e analysis.Explanation) {
	pods := ""
	if e.PodSelector != "" {
		pods = " for pods with " + e.PodSelector
	}
	for _, reason := range e.Reasons {
		out.Line("%s: %s allowed%s by %s", source, target, pods, reason)
	}
	for _, nearest := range e.Nearest {
		out.Line("%s: %s denied%s: %s", source, target, pods, nearest)
	}
}

// explainFlows prints the flows of logs that the policies of the files deny, by destination.
func explainFlows(name string, logs *flowFlags, input *cli.Input, format string, stdin io.Reader, stdout, stderr cli.Output) int {
	const maxShown = 50
	if err := cli.CheckFormat(format, "text", "json"); err != nil {
		stderr.UsageError(name, err)
		return cli.ExitUsage
	}
	found, status, ok := logs.read(name, stdin, stderr)
	if !ok || !found.checkNamespaces(name, input.Sources, stderr) {
		return cli.ExitUsage
	}
	all := []denied{}
	for _, namespace := range namespacesOf(input.Sources) {
		n, isValid := trafficOf(namespace, input.Sources, input, found.cluster, stderr)
		if !isValid {
			status = max(status, cli.ExitInvalid)
			continue
		}
		own := found.of(namespace)
		deniedFlows := deniedOf(namespace, own, func(flow flows.Flow) bool { return !n.Allows(flow) })
		all = append(all, deniedFlows...)
		if format != "text" {
			continue
		}
		for i, d := range deniedFlows {
			if i == maxShown {
				stdout.Line("%s: and %d more destinations", namespace, len(deniedFlows)-maxShown)
				break
			}
			stdout.Line("%s: %s denied (sources: %d, records: %d)%s", namespace, d.Destination, d.Sources, d.Records, nearestTo(d.first, namespace, input))
		}
		if domains := domainsOf(namespace, input); len(deniedFlows) > 0 && len(domains) > 0 {
			stdout.Line("%s: note: logs have no names, so connections to %s are listed as denied", namespace, strings.Join(domains, ", "))
		}
		if len(deniedFlows) == 0 {
			stdout.Line("%s: the policies allow every flow: %d", namespace, len(own))
		}
	}
	if len(all) > 0 {
		status = max(status, cli.ExitInvalid)
	}
	if format == "json" {
		status = stdout.Result(stderr, name, all, status)
	}
	return input.ReportUnread(stderr, name, status)
}

// domainsOf returns the domains that the policies of a namespace open, in the order of the files.
func domainsOf(namespace string, input *cli.Input) []string {
	var domains []string
	for _, source := range input.Sources {
		if source.ConfigMap.Namespace != namespace {
			continue
		}
		compiled := netpol.CompileConfigMap(source.ConfigMap, input.Inputs(namespace))
		if compiled.Policy == nil {
			continue
		}
		for _, d := range compiled.Policy.Destinations {
			if d.Domain != "" {
				domains = append(domains, d.Domain)
			}
		}
	}
	return domains
}

// nearestTo returns what comes closest to allowing a flow, as the end of a line.
func nearestTo(flow flows.Flow, namespace string, input *cli.Input) string {
	for _, source := range input.Sources {
		if source.ConfigMap.Namespace != namespace {
			continue
		}
		in := input.Inputs(namespace)
		compiled := netpol.CompileConfigMap(source.ConfigMap, in)
		if compiled.Policy == nil {
			continue
		}
		target := analysis.Target{Address: flow.Destination, Port: flow.Port, Protocol: flow.Protocol}
		e := analysis.Explain(compiled.Policy, in, target)
		e = analysis.ExplainPlatform(e, input.Platform.Governing(namespace), in, target)
		if len(e.Nearest) > 0 {
			return ": " + e.Nearest[0]
		}
	}
	return ""
}
