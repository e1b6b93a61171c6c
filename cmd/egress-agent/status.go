package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"egress-agent/cmd/egress-agent/internal/page"
	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/agent"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/status"
)

const statusUsage = `
egress-agent status shows the state of each policy in a cluster. It reads the
cluster and changes nothing. With -n it needs only the right to list ConfigMaps
and NetworkPolicies in that namespace.

Usage:
  egress-agent status [-n NAMESPACE] [--kubeconfig FILE] [--flows FILE... [--pods FILE]]
        [-o text|wide|json|html|markdown|csv|report]

Examples:
  egress-agent status -n tenant-a
  egress-agent status -o html > egress.html
  egress-agent status --flows network-policy-agent.log
  egress-agent status -o json | jq -r '.policies[] | select(.state != "Applied") | .namespace + "/" + .name'

The states:
  Applied            the agent made the NetworkPolicy from the current version of
                     the policy, and nobody has edited it since
  Invalid            the policy has problems, or exceeds a limit together with the
                     other policies of the namespace; its last valid version stays
                     in force
  NameConflict       the agent does not manage the NetworkPolicy of that name
  NamespaceExempt    the agent writes nothing in the namespace
  RangesUnavailable  the AWS ranges of a service are unknown
  Guarded            in force, without what guardrails of the platform close
  Pending            the agent is behind or not running

Standard error shows why a policy is not applied; with json and html, the output
shows this. The columns of the table:
  DESTINATIONS  the number of destinations
  CIDRS         the number of CIDRs in force
  PORT SLOTS    the port slots of the CIDR that uses the most, counted over all
                policies of the namespace, and the limit of the dataplane
  RANGES        the time since the agent last confirmed the AWS ranges as the
                latest; it writes that time to the cluster once a day
  OTHERS        the other NetworkPolicies of the namespace that allow egress; a
                policy cannot close what they allow

status checks policies with the options and the custom ranges that the agent
saved in the ConfigMap egress-ranges. With --ranges-file, or without permission
to read that ConfigMap, give the flags of the agent, such as --custom-ranges.

--flows reads logs of connections, as recommend does. status then compares them
with the policies: one row for each namespace, with the destinations that would be
denied if every policy had the defaultAction deny, and the entries of policies
that no connection used. It reads the pods and Services from the cluster, or from
--pods.

-o markdown and -o csv are for auditors: each destination of each policy, with the
time and the syncToken of the AWS ranges. -o report prints a Report of
openreports.io/v1alpha1 for each namespace, the worst results first, for kubectl
apply and Policy Reporter: the state, what is wide, open on every port or in every
region, expired or expiring, without a reason, without a field that the platform
requires, and NetworkPolicies of others that open egress.

-o json prints an object, with times in RFC 3339:
  cluster    the URL of the API server
  made       the time of the report
  ranges     null if unknown, or source, syncToken, published, confirmed (null for
             a file), ageSeconds, held (the number of prefixes that AWS removed and
             that are still open), refused (why the agent refused a later document;
             empty if it refused none)
  policies   namespace, name, state, messages, defaultAction, destinations (name,
             cidr or service and regions, ports; if left out, regions and ports
             mean all; cidrs, the number in force), networkPolicy, cidrs,
             portSlots, maxPortSlots, governedBy (the platform documents of the
             namespace, if known), missing (what these require and the policy
             lacks), and others (name; policy, whether the agent made it from
             another policy; platform, whether from a platform document;
             everything, whether it allows everything; pods, its selector)
  traffic    only with --flows: namespace, flows (distinct connections), denied
             (destination, sources, records) and unused (POLICY/DESTINATION); each
             destination of policies then has flows, those that it allows

Exit status: 0 all policies are applied or there are none, 1 a policy is not
applied or, with --flows, a connection would be denied, 2 wrong usage or
unreadable cluster.
`

type statusOptions struct {
	policyFlags     *cli.PolicyFlags
	kubeconfig      string
	tenantNamespace string // the namespace whose policies status shows; empty means all namespaces
	agentNamespace  string
	format          string
	logs            flowFlags
}

func printStatus(ctx context.Context, args []string, stdin io.Reader, stdout, stderr cli.Output) int {
	flags := flag.NewFlagSet(program+" status", flag.ContinueOnError)
	o := &statusOptions{policyFlags: cli.NewPolicyFlags()}
	o.policyFlags.AddFlags(flags)
	flags.StringVar(&o.tenantNamespace, "n", "", "show only the policies of this `namespace`; default: all namespaces")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig `FILE`; default: the files in KUBECONFIG, else ~/.kube/config, else the Pod's service account")
	flags.StringVar(&o.agentNamespace, "namespace", newOptions().namespace, "the agent's `namespace`, which has the ConfigMap "+agent.RangesName+"; unused with --ranges-file")
	o.logs.addFlags(flags)
	flags.StringVar(&o.format, "o", "text", "output `format`: text, wide, json, html, markdown, csv or report")
	if status, ok := cli.Parse(flags, args, statusUsage, stdout, stderr); !ok {
		return status
	}
	options, err := o.policyFlags.Options()
	if err := errors.Join(err, o.validate(), cli.CheckNoArguments(flags)); err != nil {
		stderr.UsageError(flags.Name(), err)
		return cli.ExitUsage
	}
	var found *connections
	if len(o.logs.files) > 0 {
		var status int
		var ok bool
		if found, status, ok = o.logs.read(flags.Name(), stdin, stderr); !ok || status != cli.ExitOK {
			return cli.ExitUsage
		}
	}
	note := func(format string, args ...any) { stderr.Line(flags.Name()+": "+format, args...) }
	state, err := o.read(ctx, options, newProgress(stderr.Unescaped()), note)
	if err != nil {
		note("%s", oneLine(err.Error()))
		return cli.ExitUsage
	}
	report := status.NewReport(state.server, time.Now().UTC().Truncate(time.Second), state.ranges, state.cluster)
	if found != nil {
		if state.pods != nil {
			found.cluster = state.pods
		}
		if n := len(report.Policies); n > 0 && found.cluster.IsEmpty() && report.Policies[0].Namespace != report.Policies[n-1].Namespace {
			note("the policies are of several namespaces: give --pods FILE, which says whose connections these are, or -n NAMESPACE")
			return cli.ExitUsage
		}
		report.AddTraffic(state.cluster, found.flows, found.cluster)
	}
	if len(report.Policies) == 0 {
		stderr.Line("%s", noPoliciesMessage(o.tenantNamespace))
	}
	return writeReport(report, state.cluster.Table, o.format, flags.Name(), stdout.Unescaped(), stderr.Unescaped())
}

func (o *statusOptions) validate() error {
	errs := []error{cli.CheckFormat(o.format, "text", "wide", "json", "html", "markdown", "csv", "report")}
	for _, option := range []struct{ flag, namespace string }{{"-n", o.tenantNamespace}, {"--namespace", o.agentNamespace}} {
		if problems := validation.IsDNS1123Label(option.namespace); option.namespace != "" && len(problems) > 0 {
			errs = append(errs, fmt.Errorf("invalid %s %q: %s", option.flag, option.namespace, problems[0]))
		}
	}
	return errors.Join(errs...)
}

// noPoliciesMessage returns the message that kubectl prints. An empty namespace means all namespaces.
func noPoliciesMessage(namespace string) string {
	if namespace == "" {
		return "No policies found."
	}
	return fmt.Sprintf("No policies found in %s namespace.", namespace)
}

// writeReport writes a report in one of the formats. It returns the exit status, which is ExitInvalid if a policy is
// not applied, or a flow would be denied. table may be nil.
func writeReport(report *status.Report, table *awsranges.Table, format, program string, stdout, stderr io.Writer) int {
	exit := cli.ExitOK
	for _, p := range report.Policies {
		if p.State != status.Applied {
			exit = cli.ExitInvalid
		}
	}
	for _, t := range report.Traffic {
		if len(t.Denied) > 0 {
			exit = cli.ExitInvalid
		}
	}
	var err error
	switch format {
	case "json":
		return cli.NewOutput(stdout).Result(cli.NewOutput(stderr), program, report, exit)
	case "html":
		err = page.Write(stdout, report, table)
	case "markdown":
		writeMarkdown(cli.NewOutput(stdout), report)
	case "csv":
		err = writeCSV(stdout, report)
	case "report":
		var objects []any
		for _, object := range report.OpenReports() {
			objects = append(objects, object)
		}
		err = cli.NewOutput(stdout).YAML(objects...)
	default:
		write := writeTable
		if report.Traffic != nil {
			write = writeTraffic
		}
		if err = write(stdout, report, format == "wide"); err == nil {
			printReasons(cli.NewOutput(stderr), report)
			printTraffic(cli.NewOutput(stderr), report, format == "wide")
		}
	}
	if err != nil {
		cli.NewOutput(stderr).UsageError(program, err)
		return cli.ExitUsage
	}
	return exit
}
