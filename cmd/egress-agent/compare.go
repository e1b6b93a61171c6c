package main

import (
	"fmt"
	"io"
	"net/netip"
	"strings"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// comparison is that of one policy with its base, as -o json prints it.
type comparison struct {
	File      string `json:"file"` // the base, where the policy was removed
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	State     string `json:"state"` // changed, unchanged, new or removed
	netpol.Comparison
	source cli.Source
}

// pair is a policy in two versions; either may be nil.
type pair struct{ before, after *cli.Source }

// pairs matches policies by namespace and name, in the new order and then the old one, and a lone bare
// policy.json with another.
func pairs(base, sources []cli.Source) []pair {
	if len(base) == 1 && len(sources) == 1 && base[0].Bare() && sources[0].Bare() {
		return []pair{{&base[0], &sources[0]}}
	}
	var all []pair
	at := make(map[string]int)
	for i := range sources {
		at[sources[i].Policy()] = len(all)
		all = append(all, pair{nil, &sources[i]})
	}
	for i := range base {
		if same, ok := at[base[i].Policy()]; ok {
			all[same].before = &base[i]
		} else {
			all = append(all, pair{&base[i], nil})
		}
	}
	return all
}

// compare compares the policies of the input with those of a base. The status is ExitInvalid where one
// is invalid, and ExitUsage where ranges are missing, as stderr says.
func compare(base []cli.Source, input *cli.Input, stderr io.Writer) (comparisons []comparison, status int) {
	comparisons = []comparison{}
	for _, p := range pairs(base, input.Sources) {
		before, beforeStatus := version(p.before, input, stderr)
		after, afterStatus := version(p.after, input, stderr)
		status = max(status, beforeStatus, afterStatus)
		if before == nil || after == nil {
			continue
		}
		c := comparison{State: "changed", Comparison: netpol.Compare(netpol.Version{Policy: before, Table: input.Table}, netpol.Version{Policy: after, Table: input.Table}, input.Options.Family)}
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
func version(source *cli.Source, input *cli.Input, stderr io.Writer) (*policy.Policy, int) {
	if source == nil {
		return &policy.Policy{DefaultAction: policy.Deny}, cli.ExitOK
	}
	result, problems := netpol.Evaluate(source.ConfigMap, input.Table, input.Options)
	if problems != nil {
		cli.PrintProblems(stderr, *source, "", problems)
		return nil, cli.ExitInvalid
	}
	p, _ := netpol.Read(source.ConfigMap, input.Table) // Evaluate accepted it
	for _, name := range result.Unresolved {
		fmt.Fprintf(stderr, "%s: %s is left out: its AWS ranges are not known; give --ranges-file\n", source, name)
	}
	if len(result.Unresolved) > 0 {
		return p, cli.ExitUsage
	}
	return p, cli.ExitOK
}

func printComparison(w io.Writer, c comparison) {
	if c.State != "changed" {
		fmt.Fprintf(w, "%s: %s\n", c.source, c.State)
	}
	print := func(sign string, openings []netpol.Opening) {
		for _, o := range openings {
			for _, prefix := range o.Prefixes {
				fmt.Fprintf(w, "%s: %s: %s %s %s\n", c.source, blamed(o.Name, o.Path), sign, prefix, strings.Join(o.Ports, ", "))
			}
		}
	}
	print("+", c.Opens)
	print("-", c.Closes)
}

// blamed names an entry of a policy by its name, where it has one, and its path.
func blamed(name, path string) string {
	if name == "" {
		return path
	}
	return fmt.Sprintf("%s (%s)", name, path)
}

// mostPrefixes is how many prefixes a row of Markdown names: a comment on GitHub takes 65,536 characters.
const mostPrefixes = 20

// markdownEscapes keeps a tenant's names from being read as Markdown or HTML.
var markdownEscapes = strings.NewReplacer(`\`, `\\`, "|", `\|`, "`", "\\`", "<", "&lt;", "&", "&amp;", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "@", "&#64;")

func markdownComparison(w io.Writer, c comparison) {
	markdownHeading(w, c.source, c.State)
	if c.State == "removed" {
		fmt.Fprint(w, "Without another policy, the pods of its namespace may connect to everything.\n\n")
	}
	if len(c.Opens)+len(c.Closes) == 0 {
		return
	}
	fmt.Fprint(w, "| | addresses | ports | entry |\n|---|---|---|---|\n")
	rows := func(what string, openings []netpol.Opening) {
		for _, o := range openings {
			markdownRow(w, what, o.Prefixes, strings.Join(o.Ports, "<br>"), markdownEscapes.Replace(blamed(o.Name, o.Path)))
		}
	}
	rows("opens", c.Opens)
	rows("closes", c.Closes)
	fmt.Fprintln(w)
}

// markdownChanges is what other ranges change of a policy: its ports stay as they are.
func markdownChanges(w io.Writer, source cli.Source, changes []netpol.Change) {
	if len(changes) == 0 {
		markdownHeading(w, source, "unchanged")
		return
	}
	markdownHeading(w, source, "changed")
	fmt.Fprint(w, "| | addresses | entry |\n|---|---|---|\n")
	for _, change := range changes {
		entry := markdownEscapes.Replace(blamed(change.Name, change.Path))
		if len(change.Added) > 0 {
			markdownRow(w, "opens", change.Added, entry)
		}
		if len(change.Removed) > 0 {
			markdownRow(w, "closes", change.Removed, entry)
		}
	}
	fmt.Fprintln(w)
}

func markdownHeading(w io.Writer, source cli.Source, state string) {
	fmt.Fprintf(w, "#### %s: %s\n\n", markdownEscapes.Replace(source.Policy()), state)
}

func markdownRow(w io.Writer, what string, prefixes []netip.Prefix, cells ...string) {
	var shown []string
	for _, prefix := range prefixes[:min(mostPrefixes, len(prefixes))] {
		shown = append(shown, prefix.String())
	}
	if more := len(prefixes) - mostPrefixes; more > 0 {
		shown = append(shown, fmt.Sprintf("and %d more", more))
	}
	fmt.Fprintf(w, "| %s | %s | %s |\n", what, strings.Join(shown, "<br>"), strings.Join(cells, " | "))
}
