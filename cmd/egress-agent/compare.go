package main

import (
	"fmt"
	"slices"
	"strings"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/analysis"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// comparison compares two versions of one policy. -o json prints it.
type comparison struct {
	File      string `json:"file"` // the file of the new version, or of the old one if the policy was removed
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	State     string `json:"state"` // changed, unchanged, new or removed
	analysis.Comparison
	source cli.Source
}

// versionPair has two versions of a policy. before is nil for a new policy, and after for a removed one. If only the
// ranges differ, both are the same.
type versionPair struct{ before, after *cli.Source }

// matchVersions matches policies by namespace and name. It returns pairs in the order of sources, then the removed
// policies in the order of base. It matches a single bare policy.json with another single one.
//
// Kustomize appends a hash of the content to a name, so each edit changes the name. matchVersions therefore ignores the
// hash for the remaining policies. It does so only if each version has exactly one policy of that name.
func matchVersions(base, sources []cli.Source) []versionPair {
	if len(base) == 1 && len(sources) == 1 && base[0].IsBarePolicy() && sources[0].IsBarePolicy() {
		return []versionPair{{&base[0], &sources[0]}}
	}
	var all []versionPair
	indexOf := make(map[string]int) // in all, by name
	for i := range sources {
		indexOf[sources[i].PolicyName()] = len(all)
		all = append(all, versionPair{nil, &sources[i]})
	}
	for i := range base {
		if same, ok := indexOf[base[i].PolicyName()]; ok {
			all[same].before = &base[i]
		} else {
			all = append(all, versionPair{&base[i], nil})
		}
	}
	return matchHashedNames(all)
}

// matchHashedNames joins a pair without an old version and a pair without a new one, if the names differ only in the
// hash.
func matchHashedNames(all []versionPair) []versionPair {
	type unmatched struct{ added, removed []int } // indexes in all
	byName := make(map[string]unmatched)
	for i, p := range all {
		switch {
		case p.before == nil:
			name := nameWithoutHash(p.after)
			u := byName[name]
			u.added = append(u.added, i)
			byName[name] = u
		case p.after == nil:
			name := nameWithoutHash(p.before)
			u := byName[name]
			u.removed = append(u.removed, i)
			byName[name] = u
		}
	}
	joined := make(map[int]bool)
	for _, u := range byName {
		if len(u.added) == 1 && len(u.removed) == 1 {
			all[u.added[0]].before = all[u.removed[0]].before
			joined[u.removed[0]] = true
		}
	}
	var remaining []versionPair
	for i, p := range all {
		if !joined[i] {
			remaining = append(remaining, p)
		}
	}
	return remaining
}

func nameWithoutHash(source *cli.Source) string {
	return source.ConfigMap.Namespace + "/" + policy.WithoutHash(source.ConfigMap.Name)
}

// sameVersions pairs each policy with itself, to compare it under two tables.
func sameVersions(sources []cli.Source) []versionPair {
	all := make([]versionPair, len(sources))
	for i := range sources {
		all[i] = versionPair{&sources[i], &sources[i]}
	}
	return all
}

// compare compares the two versions of each pair: the old version under the table of input, and the new one under
// newTable. It skips a pair with an invalid version and prints its problems. It returns ExitInvalid if a version is
// invalid, or ExitUsage if a service has no ranges.
func compare(pairs []versionPair, input *cli.Input, newTable *awsranges.Table, stderr cli.Output) (comparisons []comparison, status int) {
	comparisons = []comparison{}
	for _, p := range pairs {
		before, beforeStatus := readVersion(p.before, input.Table, input.Options, "", stderr)
		status = max(status, beforeStatus)
		prefix := ""
		if p.before == p.after {
			if before == nil {
				continue // do not print its problems twice
			}
			prefix = "with the new ranges: "
		}
		after, afterStatus := readVersion(p.after, newTable, input.Options, prefix, stderr)
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

// readVersion reads one version of a policy. It returns a policy that allows nothing if source is nil, and nil if the
// version is invalid. It prints the problems, each with the prefix, and returns the exit status.
func readVersion(source *cli.Source, table *awsranges.Table, options netpol.Options, prefix string, stderr cli.Output) (*analysis.PolicyVersion, int) {
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
		stderr.Line("%s: %s is left out: no AWS ranges are loaded; give --ranges-file", source, name)
		status = cli.ExitUsage
	}
	return &analysis.PolicyVersion{Policy: compiled.Policy, Table: table}, status
}

func printComparison(out cli.Output, c comparison) {
	if c.State != "changed" {
		out.Line("%s: %s", c.source, c.State)
	}
	print := func(sign string, differences []analysis.Difference) {
		for _, d := range differences {
			for _, prefix := range d.Prefixes {
				out.Line("%s: %s: %s %s %s", c.source, entryLabel(d.Name, d.Path), sign, prefix, strings.Join(d.Ports, ", "))
			}
		}
	}
	print("+", c.Opens)
	print("-", c.Closes)
}

// entryLabel returns "NAME (PATH)" for a part of a policy, or only the path if it has no name.
func entryLabel(name, path string) string {
	if name == "" {
		return path
	}
	return fmt.Sprintf("%s (%s)", name, path)
}

// maxShownPrefixes limits the prefixes in a row of Markdown: a comment on GitHub holds 65,536 characters.
const maxShownPrefixes = 20

func printMarkdown(out cli.Output, c comparison) {
	out.Markdown("#### %s: %s\n\n", c.source.PolicyName(), c.State)
	if c.State == "removed" {
		out.Markdown("Without another policy, the pods of its namespace may connect to everything.\n\n")
	}
	if len(c.Opens)+len(c.Closes) == 0 {
		return
	}
	out.Markdown("| | addresses | ports | entry |\n|---|---|---|---|\n")
	for _, d := range c.Opens {
		printMarkdownRow(out, "opens", d)
	}
	for _, d := range c.Closes {
		printMarkdownRow(out, "closes", d)
	}
	out.Markdown("\n")
}

func printMarkdownRow(out cli.Output, effect string, d analysis.Difference) {
	var shown []string
	for _, prefix := range d.Prefixes[:min(maxShownPrefixes, len(d.Prefixes))] {
		shown = append(shown, prefix.String())
	}
	if more := len(d.Prefixes) - maxShownPrefixes; more > 0 {
		shown = append(shown, fmt.Sprintf("and %d more", more))
	}
	format := "| %s | " + cellFormat(len(shown)) + " | " + cellFormat(len(d.Ports)) + " | %s |\n"
	args := []any{effect}
	for _, text := range slices.Concat(shown, d.Ports, []string{entryLabel(d.Name, d.Path)}) {
		args = append(args, text)
	}
	out.Markdown(format, args...)
}

// cellFormat returns the format of a cell with a number of lines.
func cellFormat(lineCount int) string {
	return strings.TrimSuffix(strings.Repeat("%s<br>", lineCount), "<br>")
}
