package main

import (
	"fmt"
	"strings"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/analysis"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// comparison is that of two versions of one policy, as -o json prints it.
type comparison struct {
	File      string `json:"file"` // that of the base, where the policy was removed
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	State     string `json:"state"` // changed, unchanged, new or removed
	analysis.Comparison
	source cli.Source
}

// versionPair is a policy in two versions; either may be nil, and both are one where only the ranges differ.
type versionPair struct{ before, after *cli.Source }

// matchVersions matches policies by namespace and name, in the new order and then the old one, and a lone bare
// policy.json with another. What is left is matched by its name without the hash that kustomize appends, where one
// policy of each version has that: each edit gives another hash.
func matchVersions(base, sources []cli.Source) []versionPair {
	if len(base) == 1 && len(sources) == 1 && base[0].IsBarePolicy() && sources[0].IsBarePolicy() {
		return []versionPair{{&base[0], &sources[0]}}
	}
	var all []versionPair
	at := make(map[string]int)
	for i := range sources {
		at[sources[i].PolicyName()] = len(all)
		all = append(all, versionPair{nil, &sources[i]})
	}
	for i := range base {
		if same, ok := at[base[i].PolicyName()]; ok {
			all[same].before = &base[i]
		} else {
			all = append(all, versionPair{&base[i], nil})
		}
	}
	return rehashed(all)
}

// rehashed joins pairs of one version each, of policies whose names differ by the hash alone.
func rehashed(all []versionPair) []versionPair {
	type left struct{ added, removed []int }
	byName := make(map[string]left)
	for i, p := range all {
		switch {
		case p.before == nil:
			name := hashless(p.after)
			l := byName[name]
			l.added = append(l.added, i)
			byName[name] = l
		case p.after == nil:
			name := hashless(p.before)
			l := byName[name]
			l.removed = append(l.removed, i)
			byName[name] = l
		}
	}
	joined := make(map[int]bool)
	for _, l := range byName {
		if len(l.added) == 1 && len(l.removed) == 1 {
			all[l.added[0]].before = all[l.removed[0]].before
			joined[l.removed[0]] = true
		}
	}
	var kept []versionPair
	for i, p := range all {
		if !joined[i] {
			kept = append(kept, p)
		}
	}
	return kept
}

func hashless(source *cli.Source) string {
	return source.ConfigMap.Namespace + "/" + policy.WithoutHash(source.ConfigMap.Name)
}

// sameVersions pairs each policy with itself.
func sameVersions(sources []cli.Source) []versionPair {
	all := make([]versionPair, len(sources))
	for i := range sources {
		all[i] = versionPair{&sources[i], &sources[i]}
	}
	return all
}

// compare compares the versions of each pair: the one before by the ranges of the input, the one after by the
// recent ones. The status is ExitInvalid where one is invalid, and ExitUsage where ranges are missing, as stderr
// says.
func compare(pairs []versionPair, input *cli.Input, recent *awsranges.Table, stderr cli.Output) (comparisons []comparison, status int) {
	comparisons = []comparison{}
	for _, p := range pairs {
		before, beforeStatus := version(p.before, input.Table, input.Options, "", stderr)
		status = max(status, beforeStatus)
		prefix := ""
		if p.before == p.after {
			if before == nil {
				continue // its mistakes are not said twice
			}
			prefix = "by the new ranges: "
		}
		after, afterStatus := version(p.after, recent, input.Options, prefix, stderr)
		status = max(status, afterStatus)
		if before == nil || after == nil {
			continue
		}
		c := comparison{State: "changed", Comparison: analysis.Compare(*before, *after, input.Options.Family)}
		switch {
		case p.before == nil:
			c.State, c.source = "new", *p.after
		case p.after == nil:
			c.State, c.source = "removed", *p.before
		default:
			c.source = *p.after
			if len(c.Opens)+len(c.Closes) == 0 {
				c.State = "unchanged"
			}
		}
		c.File, c.Namespace, c.Name = c.source.File, c.source.ConfigMap.Namespace, c.source.ConfigMap.Name
		comparisons = append(comparisons, c)
	}
	return comparisons, status
}

// version reads one version of a policy: one that allows nothing where there is none, nil where it is invalid.
// The prefix goes before each mistake.
func version(source *cli.Source, table *awsranges.Table, options netpol.Options, prefix string, stderr cli.Output) (*analysis.PolicyVersion, int) {
	if source == nil {
		return &analysis.PolicyVersion{Policy: &policy.Policy{DefaultAction: policy.Deny}}, cli.ExitOK
	}
	compiled := netpol.CompileConfigMap(source.ConfigMap, netpol.Inputs{Table: table, Options: options})
	if compiled.Problems != nil {
		stderr.Problems(*source, prefix, compiled.Problems)
		return nil, cli.ExitInvalid
	}
	status := cli.ExitOK
	for _, name := range compiled.Unresolved {
		stderr.Line("%s: %s is left out: its AWS ranges are not known; give --ranges-file", source, name)
		status = cli.ExitUsage
	}
	return &analysis.PolicyVersion{Policy: compiled.Policy, Table: table}, status
}

func printComparison(out cli.Output, c comparison) {
	if c.State != "changed" {
		out.Line("%s: %s", c.source, c.State)
	}
	print := func(sign string, openings []analysis.Difference) {
		for _, o := range openings {
			for _, prefix := range o.Prefixes {
				out.Line("%s: %s: %s %s %s", c.source, entryLabel(o.Name, o.Path), sign, prefix, strings.Join(o.Ports, ", "))
			}
		}
	}
	print("+", c.Opens)
	print("-", c.Closes)
}

// entryLabel names an entry of a policy by its name, where it has one, and its path.
func entryLabel(name, path string) string {
	if name == "" {
		return path
	}
	return fmt.Sprintf("%s (%s)", name, path)
}

// mostPrefixes is how many prefixes a row of Markdown names: a comment on GitHub takes 65,536 characters.
const mostPrefixes = 20

func markdownComparison(out cli.Output, c comparison) {
	out.Markdown("#### %s: %s\n\n", c.source.PolicyName(), c.State)
	if c.State == "removed" {
		out.Markdown("Without another policy, the pods of its namespace may connect to everything.\n\n")
	}
	if len(c.Opens)+len(c.Closes) == 0 {
		return
	}
	out.Markdown("| | addresses | ports | entry |\n|---|---|---|---|\n")
	for _, o := range c.Opens {
		markdownRow(out, "opens", o)
	}
	for _, o := range c.Closes {
		markdownRow(out, "closes", o)
	}
	out.Markdown("\n")
}

func markdownRow(out cli.Output, what string, o analysis.Difference) {
	var shown []string
	for _, prefix := range o.Prefixes[:min(mostPrefixes, len(o.Prefixes))] {
		shown = append(shown, prefix.String())
	}
	if more := len(o.Prefixes) - mostPrefixes; more > 0 {
		shown = append(shown, fmt.Sprintf("and %d more", more))
	}
	out.Markdown("| %s | "+cell(len(shown))+" | "+cell(len(o.Ports))+" | %s |\n", values(what, shown, o.Ports, entryLabel(o.Name, o.Path))...)
}

// cell is the format of a cell of so many lines.
func cell(lines int) string { return strings.TrimSuffix(strings.Repeat("%s<br>", lines), "<br>") }

func values(what string, prefixes, ports []string, entry string) []any {
	all := []any{what}
	for _, each := range append(append(prefixes, ports...), entry) {
		all = append(all, each)
	}
	return all
}
