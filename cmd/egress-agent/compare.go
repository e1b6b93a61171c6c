package main

import (
	"fmt"
	"net/netip"
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
	File      string `json:"file"` // the file of the new version, or of the old version if the policy was removed
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	State     string `json:"state"` // changed, unchanged, new or removed
	analysis.Comparison
	source cli.Source
}

// versionPair has the sources of two versions of a policy. oldSource is nil if the policy is new, and newSource is nil
// if the policy was removed. If only the ranges differ, the two pointers are equal.
type versionPair struct{ oldSource, newSource *cli.Source }

// matchVersions matches policies by namespace and name. It returns pairs in the order of newSources, then the removed
// policies in the order of oldSources. If each list is one bare policy.json, matchVersions matches the two files.
//
// Kustomize appends a hash of the content to a name, so each edit changes the name. matchVersions therefore ignores the
// hash for the remaining policies. It does so only if each version has exactly one policy of that name.
func matchVersions(oldSources, newSources []cli.Source) []versionPair {
	if len(oldSources) == 1 && len(newSources) == 1 && oldSources[0].IsBarePolicy() && newSources[0].IsBarePolicy() {
		return []versionPair{{&oldSources[0], &newSources[0]}}
	}
	var pairs []versionPair
	indexByName := make(map[string]int) // in pairs
	for i := range newSources {
		indexByName[newSources[i].PolicyName()] = len(pairs)
		pairs = append(pairs, versionPair{nil, &newSources[i]})
	}
	for i := range oldSources {
		if index, ok := indexByName[oldSources[i].PolicyName()]; ok {
			pairs[index].oldSource = &oldSources[i]
		} else {
			pairs = append(pairs, versionPair{&oldSources[i], nil})
		}
	}
	return matchHashedNames(pairs)
}

// matchHashedNames joins the pair of a new policy and the pair of a removed policy if their names differ only in the
// hash.
func matchHashedNames(pairs []versionPair) []versionPair {
	type candidates struct{ added, removed []int } // indexes in pairs
	byName := make(map[string]candidates)
	for i, p := range pairs {
		switch {
		case p.oldSource == nil:
			name := nameWithoutHash(p.newSource)
			c := byName[name]
			c.added = append(c.added, i)
			byName[name] = c
		case p.newSource == nil:
			name := nameWithoutHash(p.oldSource)
			c := byName[name]
			c.removed = append(c.removed, i)
			byName[name] = c
		}
	}
	isJoined := make(map[int]bool)
	for _, c := range byName {
		if len(c.added) == 1 && len(c.removed) == 1 {
			pairs[c.added[0]].oldSource = pairs[c.removed[0]].oldSource
			isJoined[c.removed[0]] = true
		}
	}
	var remaining []versionPair
	for i, p := range pairs {
		if !isJoined[i] {
			remaining = append(remaining, p)
		}
	}
	return remaining
}

func nameWithoutHash(source *cli.Source) string {
	return source.ConfigMap.Namespace + "/" + policy.WithoutHash(source.ConfigMap.Name)
}

// pairWithItself pairs each policy with itself, to compare the policy under two tables.
func pairWithItself(sources []cli.Source) []versionPair {
	pairs := make([]versionPair, len(sources))
	for i := range sources {
		pairs[i] = versionPair{&sources[i], &sources[i]}
	}
	return pairs
}

// compare compares the two versions of each pair: the old version under input.Table, and the new version under
// newTable. It skips a pair with an invalid version and prints its problems. It returns ExitInvalid if a version is
// invalid, or ExitUsage if a service has no ranges.
func compare(pairs []versionPair, input *cli.Input, newTable *awsranges.Table, stderr cli.Output) (comparisons []comparison, status int) {
	comparisons = []comparison{}
	for _, p := range pairs {
		oldVersion, oldStatus := readVersion(p.oldSource, input.Table, input, "", stderr)
		status = max(status, oldStatus)
		prefix := ""
		if p.oldSource == p.newSource {
			if oldVersion == nil {
				continue // do not print the problems of the policy twice
			}
			prefix = "with the new ranges: "
		}
		newVersion, newStatus := readVersion(p.newSource, newTable, input, prefix, stderr)
		status = max(status, newStatus)
		if oldVersion == nil || newVersion == nil {
			continue
		}
		c := comparison{State: "changed", Comparison: analysis.Compare(*oldVersion, *newVersion, input.Options.Family)}
		switch {
		case p.oldSource == nil:
			c.State, c.source = "new", *p.newSource
		case p.newSource == nil:
			c.State, c.source = "removed", *p.oldSource
		default:
			c.source = *p.newSource
			if len(c.Opens)+len(c.Closes) == 0 {
				c.State = "unchanged"
			}
		}
		c.File, c.Namespace, c.Name = c.source.File, c.source.ConfigMap.Namespace, c.source.ConfigMap.Name
		comparisons = append(comparisons, c)
	}
	return comparisons, status
}

// readVersion reads one version of a policy. If source is nil, it returns a policy that allows nothing. If the version
// is invalid, it prints each problem with prefix and returns nil. It also returns the exit status.
func readVersion(source *cli.Source, table *awsranges.Table, input *cli.Input, prefix string, stderr cli.Output) (*analysis.PolicyVersion, int) {
	if source == nil {
		return &analysis.PolicyVersion{Policy: &policy.Policy{DefaultAction: policy.Deny}}, cli.ExitOK
	}
	// diff compares the API server by its name.
	compiled := netpol.CompileConfigMap(source.ConfigMap, netpol.Inputs{Table: table, Options: input.Options, Now: input.Now, APIServer: []netip.AddrPort{}})
	if compiled.Problems != nil {
		stderr.Problems(*source, prefix, compiled.Problems)
		return nil, cli.ExitInvalid
	}
	status := cli.ReportUnresolved(source.String(), compiled, stderr)
	return &analysis.PolicyVersion{Policy: compiled.Policy, Table: table, Now: input.Now}, status
}

func printComparison(out cli.Output, c comparison) {
	if c.State != "changed" {
		out.Line("%s: %s", c.source, c.State)
	}
	printDifferences := func(sign string, differences []analysis.Difference) {
		for _, d := range differences {
			for _, peer := range peersOf(d) {
				out.Line("%s: %s: %s %s %s", c.source, entryLabel(d.Name, d.Path), sign, peer, strings.Join(d.Ports, ", "))
			}
		}
	}
	printDifferences("+", c.Opens)
	printDifferences("-", c.Closes)
}

// peersOf returns the prefixes, the pods or the entity of a difference.
func peersOf(d analysis.Difference) []string {
	if d.Peer != "" {
		return []string{d.Peer}
	}
	texts := make([]string, len(d.Prefixes))
	for i, prefix := range d.Prefixes {
		texts[i] = prefix.String()
	}
	return texts
}

// entryLabel returns "NAME (PATH)" for a part of a policy, or PATH if name is empty.
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
	shown := peersOf(d)
	if more := len(shown) - maxShownPrefixes; more > 0 {
		shown = append(shown[:maxShownPrefixes], fmt.Sprintf("and %d more", more))
	}
	format := "| %s | " + cellFormat(len(shown)) + " | " + cellFormat(len(d.Ports)) + " | %s |\n"
	args := []any{effect}
	for _, text := range slices.Concat(shown, d.Ports, []string{entryLabel(d.Name, d.Path)}) {
		args = append(args, text)
	}
	out.Markdown(format, args...)
}

// cellFormat returns the format of a cell with lineCount lines.
func cellFormat(lineCount int) string {
	return strings.TrimSuffix(strings.Repeat("%s<br>", lineCount), "<br>")
}
