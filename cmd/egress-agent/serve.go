package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	goruntime "runtime"
	"strconv"
	"time"

	_ "golang.org/x/crypto/x509roots/fallback" // a scratch image has no system roots
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/agent"
	"egress-agent/pkg/audit"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
)

const usage = `
egress-agent writes one NetworkPolicy for each ConfigMap that has the label
egress-controller=managed and a policy.json. It runs in a cluster, or outside
one with --kubeconfig.

Usage:
  egress-agent [flags]               run
  egress-agent render -f FILE...     print the NetworkPolicies of policies in files
  egress-agent explain -f FILE... --to ADDRESS:PORT
                                     show what allows a connection, or the closest destinations
  egress-agent diff -f FILE... --base OLD
  egress-agent diff -f FILE... --ranges-file OLD --against NEW
                                     show what an edit or other AWS ranges open and close
  egress-agent recommend --flows FILE...
                                     print a policy for the connections that pods made
  egress-agent status [-n NAMESPACE] show the state of each policy in a cluster
  egress-agent audit FILE...         show who changed what, from the logs with --audit
  egress-agent mirror --from-kubeconfig FILE
                                     run, and copy the policies of another cluster

Examples:
  egress-agent --kubeconfig ~/.kube/config --ranges-file ip-ranges.json
  egress-agent render -f policy.yaml --ranges-file ip-ranges.json

Exit status: 0 stopped by a signal, 1 failed, 2 wrong usage.
`

type options struct {
	*cli.Service
	kubeconfig      string
	namespace       string
	leaderElect     bool
	rangesURL       string
	refreshInterval time.Duration
	removalHold     time.Duration
	acceptRanges    string
	workers         int
	parentLabels    cli.Strings
	chunkPeers      int
	settle          time.Duration
	audit           bool
	reports         bool
	serviceEntries  bool
}

// trail returns the audit trail, or nil without --audit.
func (o *options) trail(stdout io.Writer) *audit.Log {
	if !o.audit {
		return nil
	}
	return audit.NewLog(stdout, program, time.Now)
}

func newOptions() *options {
	return &options{
		Service:         cli.NewService(),
		rangesURL:       "https://ip-ranges.amazonaws.com/ip-ranges.json",
		namespace:       "egress-system",
		leaderElect:     true,
		refreshInterval: 15 * time.Minute,
		removalHold:     24 * time.Hour,
		workers:         4 * goruntime.GOMAXPROCS(0), // workers mostly wait for the API server
		chunkPeers:      200,                         // the capacity of one PolicyEndpoints object of the self-managed controller
		settle:          5 * time.Second,
	}
}

func (o *options) addFlags(flags *flag.FlagSet) {
	o.Service.AddFlags(flags)
	flags.BoolVar(&o.reports, "reports", o.reports, "keep a Report of openreports.io/v1alpha1 in each namespace with policies; needs deploy/components/reports")
	flags.BoolVar(&o.serviceEntries, "service-entries", o.serviceEntries, "keep Istio's ServiceEntries beside the NetworkPolicies; needs deploy/components/service-entries")
	flags.BoolVar(&o.audit, "audit", o.audit, "write a line of JSON to standard output for each NetworkPolicy that is written or deleted: why, what it opens and closes")
	flags.StringVar(&o.kubeconfig, "kubeconfig", o.kubeconfig, "kubeconfig `FILE`; default: the Pod's service account")
	flags.StringVar(&o.namespace, "namespace", o.namespace, "the agent's own `namespace`, which has its Lease and the ConfigMap "+agent.RangesName)
	flags.BoolVar(&o.leaderElect, "leader-elect", o.leaderElect, "write only while this agent holds the Lease, so that only one of several agents writes")
	flags.StringVar(&o.rangesURL, "ranges-url", o.rangesURL, "https `URL` of AWS's ip-ranges.json; unused with --ranges-file")
	flags.DurationVar(&o.refreshInterval, "refresh-interval", o.refreshInterval, "interval between refreshes of the AWS ranges; a changed file is also reloaded")
	flags.DurationVar(&o.removalHold, "removal-hold", o.removalHold, "how long a prefix stays open after AWS or a custom file removes it: many prefixes return within a day")
	flags.StringVar(&o.acceptRanges, "accept-ranges", o.acceptRanges, "`SYNCTOKEN` of a ranges document to accept, although it is older, lacks too many rows or opens too much")
	flags.IntVar(&o.workers, "workers", o.workers, "number of policies to sync in parallel")
	flags.Var(&o.parentLabels, "parent-label", "`KEY` of the label with which a Namespace names its parent, whose policies with the annotation egress-controller/inherit it inherits (repeatable; default egress-controller/parent)")
	flags.IntVar(&o.chunkPeers, "chunk-peers", o.chunkPeers, "highest number of CIDRs of a policy that the agent changes in one write; a larger policy first gets the union of its old and new rules")
	flags.DurationVar(&o.settle, "settle", o.settle, "wait between the two writes of a large change")
}

func (o *options) validate() error {
	var errs []error
	if o.workers < 1 {
		errs = append(errs, fmt.Errorf("invalid --workers %d: must be at least 1", o.workers))
	}
	if u, err := url.Parse(o.rangesURL); err != nil || u.Scheme != "https" || u.Host == "" {
		errs = append(errs, fmt.Errorf("invalid --ranges-url %q: must begin with https://; for a file give --ranges-file", o.rangesURL))
	}
	if problems := validation.IsDNS1123Label(o.namespace); len(problems) > 0 {
		errs = append(errs, fmt.Errorf("invalid --namespace %q: %s", o.namespace, problems[0]))
	}
	if o.removalHold < 0 {
		errs = append(errs, fmt.Errorf("invalid --removal-hold %s: must be at least 0s", o.removalHold))
	}
	if _, err := strconv.ParseUint(o.acceptRanges, 10, 63); o.acceptRanges != "" && err != nil {
		errs = append(errs, fmt.Errorf("invalid --accept-ranges %q: must be a document's syncToken, such as 1787411825", o.acceptRanges))
	}
	if o.refreshInterval < time.Second {
		errs = append(errs, fmt.Errorf("invalid --refresh-interval %s: must be at least 1s", o.refreshInterval))
	}
	for _, key := range o.parentLabels {
		if problems := validation.IsQualifiedName(key); len(problems) > 0 {
			errs = append(errs, fmt.Errorf("invalid --parent-label %q: %s", key, problems[0]))
		}
	}
	if o.chunkPeers < 0 {
		errs = append(errs, fmt.Errorf("invalid --chunk-peers %d: must be at least 0", o.chunkPeers))
	}
	if o.settle < 0 {
		errs = append(errs, fmt.Errorf("invalid --settle %s: must be at least 0s", o.settle))
	}
	return errors.Join(errs...)
}

// parentKeys returns the keys of --parent-label, or the default.
func (o *options) parentKeys() []string {
	if len(o.parentLabels) == 0 {
		return []string{"egress-controller/parent"}
	}
	return o.parentLabels
}

func serve(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, flags := newOptions(), flag.NewFlagSet(program, flag.ContinueOnError)
	o.addFlags(flags)
	compileOptions, log, status, ok := o.Parse(flags, args, usage, o.validate, stdout, stderr)
	if !ok {
		return status
	}
	klog.SetSlogLogger(log)
	clients, err := o.clients(compileOptions.Domains)
	if err != nil {
		log.Error("create Kubernetes client failed", "error", err, "hint", "give --kubeconfig")
		return cli.ExitUsage
	}
	registry := cli.NewRegistry(program)
	a := agent.New(clients, agent.Options{
		Compile:      compileOptions,
		Source:       o.source(),
		Namespace:    o.namespace,
		LeaderElect:  o.leaderElect,
		Workers:      o.workers,
		ParentLabels: o.parentKeys(),
		Trail:        o.trail(stdout),
		Companions:   agent.Companions{Reports: o.reports, ServiceEntries: o.serviceEntries},
		ChunkPeers:   o.chunkPeers,
		Settle:       o.settle,
		Metrics:      registry,
	}, log)
	closeHealth, err := o.ServeHealth(a.Ready, registry, log)
	if err == nil {
		defer closeHealth()
		err = a.Run(ctx)
	}
	if err != nil {
		log.Error("run agent failed", "error", err)
		return cli.ExitInvalid
	}
	return cli.ExitOK
}

// fetchTimeout limits a whole request to AWS, including the body.
const fetchTimeout = 30 * time.Second

func (o *options) source() agent.Source {
	return agent.Source{
		Feed: &awsranges.Feed{
			File:        o.Policy.RangesFile,
			URL:         o.rangesURL,
			Client:      awsranges.NewClient(fetchTimeout),
			RemovalHold: o.removalHold,
			AcceptToken: o.acceptRanges,
			Now:         time.Now,
		},
		Custom:   o.Policy.Custom(),
		Interval: o.refreshInterval,
	}
}

// clients returns clients without a rate limit, because the API server limits them by priority and fairness. Only the
// client for Events has a rate limit.
func (o *options) clients(domains netpol.Domains) (clients agent.Clients, err error) {
	config, err := controllerConfig(o.kubeconfig, agent.Name)
	if err != nil {
		return clients, err
	}
	if clients.API, err = kubernetes.NewForConfig(config); err != nil {
		return clients, err
	}
	if clients.Metadata, err = metadata.NewForConfig(config); err != nil {
		return clients, err
	}
	if o.reports || o.serviceEntries || domains.IsOn() {
		if clients.Dynamic, err = dynamic.NewForConfig(config); err != nil {
			return clients, err
		}
	}
	config.QPS, config.Burst = agent.EventsPerSecond, agent.EventsPerSecond
	clients.Events, err = kubernetes.NewForConfig(config)
	return clients, err
}

// controllerConfig returns the configuration of a controller's clients. An empty kubeconfig means the Pod's service
// account.
func controllerConfig(kubeconfig, userAgent string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.UserAgent = userAgent
	useProtobuf(config)
	config.DisableCompression = true // like the control plane's own controllers: compression costs client and server more time than it saves
	return config, nil
}

// useProtobuf selects the encoding that costs the client and the API server the least time. It also removes the rate
// limit of the client.
func useProtobuf(config *rest.Config) {
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	config.QPS = -1
}
