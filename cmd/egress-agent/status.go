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
egress-agent status says how each policy of a cluster stands. It reads, and
writes nothing. Whoever may list ConfigMaps and NetworkPolicies in a namespace may
ask for it with -n.

Usage:
  egress-agent status [-n NAMESPACE] [--kubeconfig FILE] [-o text|wide|json|html]

Examples:
  egress-agent status -n tenant-a
  egress-agent status -o html > egress.html
  egress-agent status -o json | jq -r '.policies[] | select(.state != "Applied") | .namespace + "/" + .name'

The states:
  Applied            the NetworkPolicy was made from the policy as it is now, and
                     nobody has edited it since
  Invalid            the policy has mistakes, or is too much beside the namespace's
                     others; its last valid version stays in force
  NameConflict       a NetworkPolicy of that name is not the agent's to write
  NamespaceExempt    the agent writes nothing in the namespace
  RangesUnavailable  the AWS ranges of a service are not known
  Pending            the agent has not come to it, or does not run

Why a policy is not applied is on standard error or, with json and html, in the
output. DESTINATIONS and CIDRS are counted, PORT SLOTS are the most that any CIDR
takes of those the dataplane has, over all policies of the namespace, and RANGES
is how long ago the AWS ranges were last found to be the latest, which the
cluster is told once a day. Under OTHERS are the other NetworkPolicies of the
namespace that allow egress: what they allow, a policy cannot take away.

The agent's flags are not known here. A NetworkPolicy made from the policy as it
is now shows that the agent accepted it; give its --custom-ranges and the like
where a policy that it has not come to is to be judged as it would.

-o json is an object:
  cluster    the API server
  made       when, in RFC 3339
  ranges     null where not known, or source, syncToken, published and confirmed
             in RFC 3339 (confirmed null for a file), ageSeconds, held (prefixes
             that AWS removed and that are still open), refused (why a later
             document was; empty for none)
  policies   namespace, name, state, messages, defaultAction, destinations (name,
             cidr or service and regions, ports; left out, they mean all; cidrs,
             how many are in force), networkPolicy, cidrs, portSlots,
             maxPortSlots, and others (name; policy, whether another policy is
             behind it; everything, whether it allows that; pods, its selector)

Exit status: 0 all policies are applied, or there is none, 1 one is not, 2 wrong
usage, or a cluster that cannot be read.
`

type statusOptions struct {
	rules      *cli.PolicyFlags
	kubeconfig string
	tenant     string
	namespace  string
	format     string
}

func statusOf(ctx context.Context, args []string, stdout, stderr cli.Output) int {
	flags := flag.NewFlagSet(program+" status", flag.ContinueOnError)
	o := &statusOptions{rules: cli.NewPolicyFlags()}
	o.rules.AddFlags(flags)
	flags.StringVar(&o.tenant, "n", "", "the `namespace` whose policies are shown; left out, all of them")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig `FILE`; left out, those in KUBECONFIG, else ~/.kube/config, else the Pod's service account")
	flags.StringVar(&o.namespace, "namespace", newOptions().namespace, "the agent's `namespace`, where the ConfigMap "+agent.RangesName+" is; not read with --ranges-file")
	flags.StringVar(&o.format, "o", "text", "output `format`: text, wide, json or html")
	if status, ok := cli.Parse(flags, args, statusUsage, stdout, stderr); !ok {
		return status
	}
	options, err := o.rules.Options()
	if err := errors.Join(err, o.validate(), cli.CheckNoArguments(flags)); err != nil {
		stderr.Complain(flags.Name(), err)
		return cli.ExitUsage
	}
	note := func(format string, args ...any) { stderr.Line(flags.Name()+": "+format, args...) }
	found, err := o.read(ctx, options, newProgress(stderr.Unescaped()), note)
	if err != nil {
		note("%s", oneLine(err.Error()))
		return cli.ExitUsage
	}
	report := status.NewReport(found.server, time.Now().UTC().Truncate(time.Second), found.ranges, found.cluster)
	if len(report.Policies) == 0 {
		stderr.Line("%s", nothingFound(o.tenant))
	}
	return writeReport(report, found.cluster.Table, o.format, flags.Name(), stdout.Unescaped(), stderr.Unescaped())
}

func (o *statusOptions) validate() error {
	errs := []error{cli.CheckFormat(o.format, "text", "wide", "json", "html")}
	for _, given := range []struct{ flag, namespace string }{{"-n", o.tenant}, {"--namespace", o.namespace}} {
		if problems := validation.IsDNS1123Label(given.namespace); given.namespace != "" && len(problems) > 0 {
			errs = append(errs, fmt.Errorf("invalid %s %q: %s", given.flag, given.namespace, problems[0]))
		}
	}
	return errors.Join(errs...)
}

// nothingFound is what kubectl says.
func nothingFound(namespace string) string {
	if namespace == "" {
		return "No policies found."
	}
	return fmt.Sprintf("No policies found in %s namespace.", namespace)
}

// writeReport writes a report in one of the formats, and returns the exit status.
func writeReport(report *status.Report, table *awsranges.Table, format, program string, stdout, stderr io.Writer) int {
	exit := cli.ExitOK
	for _, p := range report.Policies {
		if p.State != status.Applied {
			exit = cli.ExitInvalid
		}
	}
	var err error
	switch format {
	case "json":
		return cli.NewOutput(stdout).Result(cli.NewOutput(stderr), program, report, exit)
	case "html":
		err = page.Write(stdout, report, table)
	default:
		if err = writeTable(stdout, report, format == "wide"); err == nil {
			printReasons(cli.NewOutput(stderr), report)
		}
	}
	if err != nil {
		cli.NewOutput(stderr).Complain(program, err)
		return cli.ExitUsage
	}
	return exit
}
