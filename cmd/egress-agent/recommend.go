package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/analysis"
	"egress-agent/pkg/analysis/flows"
	"egress-agent/pkg/analysis/recommend"
	"egress-agent/pkg/analysis/traffic"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

const recommendUsage = `
egress-agent recommend prints a policy for connections that pods really made.

Usage:
  egress-agent recommend --flows FILE... [--pods FILE | --kubeconfig FILE]
        [--policy FILE...] [--platform FILE...] [--ranges-file FILE]
        [-o yaml|json|markdown]

Examples:
  egress-agent recommend --flows network-policy-agent.log --ranges-file ip-ranges.json
  kubectl get pods,services -A -o json > pods.json
  egress-agent recommend --flows agent.log.gz --pods pods.json --ranges-file ip-ranges.json
  egress-agent recommend --flows agent.log --policy policy.yaml --ranges-file ip-ranges.json

FILE is the log of the node agent of AWS VPC CNI, of any version, from the node,
from a container or from CloudWatch; VPC Flow Logs; or hubble observe -o jsonpb;
plain or gzip. Without --pods, all connections count as those of one namespace.
With it, each namespace gets a policy, and destinations in the cluster become
pods and namespaces. With --kubeconfig, the pods are those of that cluster. A policy with "defaultAction": "allow" makes the node agent
log everything and denies nothing.

The policy names a service and its region for an address that AWS publishes, but
never amazon or ec2. Other addresses become CIDRs: --entry-cost says how many
addresses without a connection one entry less is worth. 0 opens none.

With --policy the command prints an edit of the policies: entries to add, and
entries that no connection used. With --platform it leaves out what a guardrail
closes, and says so.

Exit status: 0 a policy was printed, 1 a policy of --policy is invalid, 2 wrong
usage, unreadable input, or no connections.
`

func recommendPolicy(ctx context.Context, args []string, stdin io.Reader, stdout, stderr cli.Output) int {
	flags := flag.NewFlagSet(program+" recommend", flag.ContinueOnError)
	files := cli.Files{Policies: "policy"}
	files.AddFlags(flags)
	files.AddPlatformFlag(flags)
	var logs flowFlags
	logs.addFlags(flags)
	kubeconfig := flags.String("kubeconfig", "", "know pods and Services from the cluster of the kubeconfig `FILE`")
	entryCost := flags.Int64("entry-cost", recommend.DefaultEntryCost, "how many `addresses` without a connection one entry less is worth")
	format := flags.String("o", "yaml", "output `format`: yaml, json or markdown")
	if status, ok := cli.Parse(flags, args, recommendUsage, stdout, stderr); !ok {
		return status
	}
	err := cli.CheckFormat(*format, "yaml", "json", "markdown")
	if len(logs.files) == 0 {
		err = errors.Join(err, errors.New("no input: give --flows FILE"))
	}
	if logs.pods != "" && *kubeconfig != "" {
		err = errors.Join(err, errors.New("--pods and --kubeconfig exclude each other: give one of them"))
	}
	if *entryCost < 0 {
		err = errors.Join(err, fmt.Errorf("invalid --entry-cost %d: must not be negative", *entryCost))
	}
	if err != nil {
		stderr.UsageError(flags.Name(), err)
		return cli.ExitUsage
	}
	input, status := files.Open(flags, stdin, stderr)
	if status != cli.ExitOK {
		return status
	}
	found, status, ok := logs.read(flags.Name(), stdin, stderr)
	if !ok {
		return cli.ExitUsage
	}
	if *kubeconfig != "" {
		if found.cluster, err = podsOf(ctx, *kubeconfig, flags.Name(), stderr); err != nil {
			stderr.UsageError(flags.Name(), err)
			return cli.ExitUsage
		}
	}
	if !found.checkNamespaces(flags.Name(), input.Sources, stderr) {
		return cli.ExitUsage
	}
	edits, editStatus := editsOf(found, input, *entryCost, stderr)
	status = max(status, editStatus)
	switch *format {
	case "json":
		status = stdout.Result(stderr, flags.Name(), edits, status)
	case "markdown":
		for _, e := range edits {
			e.printMarkdown(stdout)
		}
	default:
		for i, e := range edits {
			if err := e.printYAML(stdout, i > 0); err != nil {
				stderr.UsageError(flags.Name(), err)
				return cli.ExitUsage
			}
		}
	}
	return input.ReportUnread(stderr, flags.Name(), status)
}

// podsOf reads the pods and Services of the cluster of a kubeconfig.
func podsOf(ctx context.Context, kubeconfig, name string, stderr cli.Output) (*flows.Cluster, error) {
	client, server, source, err := connect(kubeconfig, "recommend")
	if err != nil {
		return nil, err
	}
	progress := newProgress(stderr.Unescaped())
	defer progress.start(server)()
	found, err := readPodsOf(ctx, client, metav1.NamespaceAll, progress)
	if apierrors.IsForbidden(err) {
		return nil, fmt.Errorf("no permission to list pods and services in all namespaces with %s: give --pods FILE", source)
	}
	if err != nil {
		o := statusOptions{kubeconfig: kubeconfig}
		return nil, errors.New(oneLine(o.describeError(err, "pods and services", server, source).Error()))
	}
	return found, nil
}

// edit is a recommended policy of one namespace. -o json prints it.
type edit struct {
	Namespace string `json:"namespace"`
	// Policy is the recommended policy.json: the entries of the existing policy, if there is one, and Added.
	Policy string `json:"policy"`
	// Added are the new entries.
	Added []addedEntry `json:"added"`
	// Unused are the names of the existing entries that no flow used. They stay.
	Unused []string `json:"unused"`
	// Closed are the flows that the platform closes, by the reason.
	Closed []string `json:"closed"`
	// Notes say which flows have no entry, and why.
	Notes []string `json:"notes"`

	name string // of the existing policy, or egress
}

type addedEntry struct {
	Name     string             `json:"name"`
	Evidence recommend.Evidence `json:"evidence"`
}

// editsOf returns an edit for each namespace that has flows.
func editsOf(found *connections, input *cli.Input, entryCost int64, stderr cli.Output) (edits []edit, status int) {
	edits = []edit{}
	missing := found.flows
	existing := make(map[string]cli.Source)
	for _, namespace := range namespacesOf(input.Sources) {
		sources := withDestinations(input.Sources)
		if !slices.Contains(namespacesOf(sources), namespace) {
			continue
		}
		n, ok := trafficOf(namespace, sources, input, found.cluster, stderr)
		if !ok {
			status = cli.ExitInvalid
		}
		isOwn := func(flow flows.Flow) bool {
			return found.cluster.IsEmpty() || found.cluster.NamespaceOf(flow.Source) == namespace
		}
		missing = slices.DeleteFunc(slices.Clone(missing), func(flow flows.Flow) bool { return flow.Accepted > 0 && isOwn(flow) && n.Allows(flow) })
	}
	for _, source := range input.Sources {
		if first, isSecond := existing[source.ConfigMap.Namespace]; isSecond {
			stderr.Line("%s: note: the new entries are for the first policy of the namespace, %s", source, first)
			continue
		}
		existing[source.ConfigMap.Namespace] = source
	}
	proposals := recommend.Propose(missing, recommend.Options{
		Table: input.Table, Family: input.Options.Family, Cluster: found.cluster, EntryCost: entryCost,
		Closed: func(flow flows.Flow) string {
			namespace := found.cluster.NamespaceOf(flow.Source)
			if sources := namespacesOf(input.Sources); found.cluster.IsEmpty() && len(sources) == 1 {
				namespace = sources[0]
			}
			return strings.Join(analysis.ClosedBy(input.Platform.Governing(namespace), input.Table, analysis.Target{Address: flow.Destination, Port: flow.Port, Protocol: flow.Protocol}), "; ")
		},
	})
	seen := make(map[string]bool)
	for _, p := range proposals {
		namespace := p.Namespace
		if namespace == "" && !found.cluster.IsEmpty() {
			stderr.Line("%s recommend: note: flows of addresses that no pod of --pods has, left out: %d; the pod may be gone, or it is a node", program, p.Flows)
			continue
		}
		if sources := namespacesOf(input.Sources); found.cluster.IsEmpty() && len(sources) == 1 {
			namespace = sources[0]
		}
		seen[namespace] = true
		source, hasPolicy := existing[namespace]
		edits = append(edits, editOf(namespace, p, source, hasPolicy, found, input, entryCost))
	}
	for _, namespace := range namespacesOf(input.Sources) {
		if !seen[namespace] {
			edits = append(edits, editOf(namespace, recommend.Proposal{Namespace: namespace, EntryCost: entryCost}, existing[namespace], true, found, input, entryCost))
		}
	}
	return edits, status
}

// withDestinations returns the policies that do not allow everything. A policy that does is there to observe.
func withDestinations(sources []cli.Source) []cli.Source {
	return slices.DeleteFunc(slices.Clone(sources), func(source cli.Source) bool {
		compiled := netpol.CompileConfigMap(source.ConfigMap, netpol.Inputs{})
		return compiled.Policy != nil && compiled.Policy.DefaultAction == policy.Allow
	})
}

func editOf(namespace string, p recommend.Proposal, source cli.Source, hasPolicy bool, found *connections, input *cli.Input, entryCost int64) edit {
	e := edit{Namespace: namespace, name: "egress", Added: []addedEntry{}, Unused: []string{}, Closed: []string{}, Notes: []string{}}
	var destinations []policy.Destination
	var podSelector *metav1.LabelSelector
	names := make(map[string]bool)
	if hasPolicy {
		e.name = source.ConfigMap.Name
		compiled := netpol.CompileConfigMap(source.ConfigMap, input.Inputs(namespace))
		if compiled.Policy != nil {
			destinations, podSelector = slices.Clone(compiled.Policy.Destinations), compiled.Policy.PodSelector
			for i, count := range traffic.NewDestinations(destinations, input.Table, namespace, found.cluster).Usage(found.of(namespace)) {
				names[destinations[i].Name] = true
				if count == 0 && destinations[i].Entity == "" && destinations[i].Domain == "" {
					e.Unused = append(e.Unused, destinations[i].Name)
				}
			}
		}
	}
	for _, entry := range p.Entries {
		for i, name := 2, entry.Name; names[entry.Name]; i++ {
			entry.Name = fmt.Sprintf("%s-%d", name, i)
		}
		names[entry.Name] = true
		e.Added = append(e.Added, addedEntry{entry.Name, entry.Evidence})
		entry.Reason = entry.Evidence.Reason()
		destinations = append(destinations, entry.Destination)
	}
	e.Policy = recommend.Document(podSelector, destinations)
	for _, closed := range p.Closed {
		e.Closed = append(e.Closed, fmt.Sprintf("%s; flows: %d", closed.Reason, closed.Flows))
	}
	note := func(count int, text string) {
		if count > 0 {
			e.Notes = append(e.Notes, fmt.Sprintf("%s: %d", text, count))
		}
	}
	note(p.DNS, "flows to the cluster's DNS, which need no entry")
	note(p.Denied, "flows that were always denied, which get no entry")
	note(p.Other, "flows outside the cluster's address family, left out")
	if p.EntryCost != entryCost {
		e.Notes = append(e.Notes, fmt.Sprintf("with --entry-cost %d there would be too many entries, so it was %d", entryCost, p.EntryCost))
	}
	if input.Table == nil {
		e.Notes = append(e.Notes, "no AWS ranges are loaded, so no entry names a service: give --ranges-file")
	}
	return e
}

// comments returns the evidence of an edit in one line each.
func (e edit) comments() []string {
	var lines []string
	for _, added := range e.Added {
		lines = append(lines, added.Name+": "+added.Evidence.String())
	}
	for _, name := range e.Unused {
		lines = append(lines, name+": no flow used it")
	}
	for _, closed := range e.Closed {
		lines = append(lines, "left out: "+closed)
	}
	return append(lines, e.Notes...)
}

func (e edit) printYAML(out cli.Output, isFurther bool) error {
	if isFurther {
		out.Line("---")
	}
	for _, line := range e.comments() {
		out.Line("# %s", line)
	}
	return out.YAML(&corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Name: e.name, Namespace: e.Namespace, Labels: map[string]string{policy.Label: policy.LabelValue}},
		Data:       map[string]string{policy.Key: e.Policy},
	})
}

func (e edit) printMarkdown(out cli.Output) {
	out.Markdown("#### %s\n\n", strings.TrimPrefix(e.Namespace+"/"+e.name, "/"))
	if len(e.Added) > 0 {
		out.Markdown("| new entry | flows | sources | addresses | opens | first | last |\n|---|---|---|---|---|---|---|\n")
	}
	for _, added := range e.Added {
		v := added.Evidence
		out.Markdown("| %s | %d | %d | %d | %d | %s | %s |\n", added.Name, v.Flows, v.Sources, v.Addresses, v.Opens, dateOf(v.First), dateOf(v.Last))
	}
	out.Markdown("\n")
	for _, name := range e.Unused {
		out.Markdown("- %s: no flow used it\n", name)
	}
	for _, line := range slices.Concat(e.Closed, e.Notes) {
		out.Markdown("- %s\n", line)
	}
}

func dateOf(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.Format(time.DateOnly)
}
