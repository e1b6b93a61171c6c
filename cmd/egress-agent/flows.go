package main

import (
	"flag"
	"io"
	"os"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/analysis/flows"
	"egress-agent/pkg/analysis/traffic"
	"egress-agent/pkg/netpol"
)

// flowFlags are the flags of the commands that read logs of connections.
type flowFlags struct {
	files  cli.Strings
	format string
	pods   string
}

func (f *flowFlags) addFlags(flagSet *flag.FlagSet) {
	flagSet.Var(&f.files, "flows", "read connections from the log `FILE`, plain or gzip; - means standard input (repeatable)")
	flagSet.StringVar(&f.format, "flows-format", string(flows.Auto), "the `format` of the logs: auto, agent, vpc or hubble")
	flagSet.StringVar(&f.pods, "pods", "", "know pods and Services from `FILE`, the output of kubectl get pods,services -A -o json")
}

// connections are the flows of the logs, and the pods that made them.
type connections struct {
	flows   []flows.Flow
	cluster *flows.Cluster // nil without --pods
}

// read reads the files. If the status is not ExitOK, read has printed the reason. ok is false if the caller must stop.
func (f *flowFlags) read(name string, stdin io.Reader, stderr cli.Output) (found *connections, status int, ok bool) {
	if err := cli.CheckFormat(f.format, flows.Formats...); err != nil {
		stderr.Line("%s: invalid --flows-format %q: must be auto, agent, vpc or hubble", name, f.format)
		return nil, cli.ExitUsage, false
	}
	found = &connections{}
	if f.pods != "" {
		file, err := os.Open(f.pods)
		if err == nil {
			defer file.Close()
			found.cluster, err = flows.ReadCluster(file)
		}
		if err != nil {
			stderr.Line("%s: --pods: %s: %v", name, f.pods, err)
			return nil, cli.ExitUsage, false
		}
	}
	log := &flows.Log{Format: flows.Format(f.format)}
	for _, path := range f.files {
		if err := openLog(path, stdin, log.Read); err != nil {
			stderr.Line("%s: %s: %v", name, path, err)
			status = cli.ExitUsage
		}
	}
	for _, line := range log.Summary() {
		stderr.Line("%s: note: %s", name, line)
	}
	if log.Records() == 0 {
		stderr.Line("%s: no connections found: the files are logs of the node agent of AWS VPC CNI (with enablePolicyEventLogs and logLevel debug), VPC Flow Logs, or hubble observe -o jsonpb", name)
		return nil, cli.ExitUsage, false
	}
	found.flows = log.TakeFlows()
	return found, status, true
}

// openLog calls read with an open file, or with stdin.
func openLog(path string, stdin io.Reader, read func(io.Reader) error) error {
	if path == cli.Stdin {
		return read(stdin)
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return read(file)
}

// of returns the flows of a namespace's pods. Without --pods, these are all flows.
func (c *connections) of(namespace string) []flows.Flow {
	if c.cluster.IsEmpty() {
		return c.flows
	}
	return slices.DeleteFunc(slices.Clone(c.flows), func(flow flows.Flow) bool { return c.cluster.NamespaceOf(flow.Source) != namespace })
}

// checkNamespaces reports whether the caller can find the policies for each flow. If not, it prints the reason.
func (c *connections) checkNamespaces(name string, sources []cli.Source, stderr cli.Output) bool {
	if len(namespacesOf(sources)) > 1 && c.cluster.IsEmpty() {
		stderr.Line("%s: the policies are of several namespaces: give --pods, which says whose connections these are", name)
		return false
	}
	return true
}

// namespacesOf returns the namespaces of policies, sorted.
func namespacesOf(sources []cli.Source) []string {
	var namespaces []string
	for _, source := range sources {
		namespaces = append(namespaces, source.ConfigMap.Namespace)
	}
	slices.Sort(namespaces)
	return slices.Compact(namespaces)
}

// trafficOf returns the NetworkPolicies of a namespace's policies. ok is false if one is invalid; trafficOf then has
// printed its problems.
func trafficOf(namespace string, sources []cli.Source, input *cli.Input, cluster *flows.Cluster, stderr cli.Output) (n *traffic.Namespace, ok bool) {
	var specs []networkingv1.NetworkPolicySpec
	ok = true
	for _, source := range sources {
		if source.ConfigMap.Namespace != namespace {
			continue
		}
		compiled := netpol.CompileConfigMap(source.ConfigMap, input.Inputs(namespace))
		if compiled.Problems != nil {
			stderr.Problems(source, "", compiled.Problems)
			ok = false
			continue
		}
		if cli.ReportUnresolved(source.String(), compiled, stderr) != cli.ExitOK {
			ok = false
			continue
		}
		specs = append(specs, compiled.Spec())
	}
	for _, document := range input.Platform.Governing(namespace) {
		if document.Base != nil {
			specs = append(specs, netpol.CompileConfigMap(netpol.BaseConfigMap(namespace, document), input.BaseInputs(document.Name)).Spec())
		}
	}
	return traffic.NewNamespace(namespace, specs, cluster), ok
}

// denied are the flows of a namespace to one destination that policies deny. -o json prints it.
type denied struct {
	Namespace   string `json:"namespace"`
	Destination string `json:"destination"` // ADDRESS:PORT/PROTOCOL
	Sources     int    `json:"sources"`     // distinct addresses
	Records     int64  `json:"records"`
	first       flows.Flow
}

// deniedOf returns the flows for which isDenied returns true, by destination. The destination with the most sources
// comes first.
func deniedOf(namespace string, all []flows.Flow, isDenied func(flows.Flow) bool) []denied {
	var found []denied
	for _, d := range traffic.DeniedOf(all, isDenied) {
		found = append(found, denied{namespace, d.First.Target(), d.Sources, d.Records, d.First})
	}
	return found
}
