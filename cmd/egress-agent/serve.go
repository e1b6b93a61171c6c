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
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/agent"
	"egress-agent/pkg/awsranges"
)

const usage = `
egress-agent keeps one NetworkPolicy beside each ConfigMap that is labelled
egress-controller=managed and holds a policy.json. It runs in a cluster, or
beside one with --kubeconfig.

Usage:
  egress-agent [flags]               run
  egress-agent render -f FILE...     print the NetworkPolicies of policies in files
  egress-agent explain -f FILE... --to ADDRESS:PORT
                                     say what allows a connection, or what comes nearest
  egress-agent diff -f FILE... --base OLD
  egress-agent diff -f FILE... --ranges-file OLD --against NEW
                                     say what an edit, or other AWS ranges, open and close
  egress-agent status [-n NAMESPACE] say how the policies of a cluster stand

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
	chunkPeers      int
	settle          time.Duration
}

func newOptions() *options {
	return &options{
		Service:         cli.NewService(),
		rangesURL:       "https://ip-ranges.amazonaws.com/ip-ranges.json",
		namespace:       "egress-system",
		leaderElect:     true,
		refreshInterval: 15 * time.Minute,
		removalHold:     24 * time.Hour,
		workers:         4 * goruntime.GOMAXPROCS(0), // they mostly wait for the API server
		chunkPeers:      200,                         // as many as a PolicyEndpoints object of the self-managed controller holds
		settle:          5 * time.Second,
	}
}

func (o *options) addFlags(flags *flag.FlagSet) {
	o.Service.AddFlags(flags)
	flags.StringVar(&o.kubeconfig, "kubeconfig", o.kubeconfig, "kubeconfig `FILE`; left out, the Pod's service account")
	flags.StringVar(&o.namespace, "namespace", o.namespace, "the agent's own `namespace`: its Lease and the ConfigMap "+agent.RangesName+" are there")
	flags.BoolVar(&o.leaderElect, "leader-elect", o.leaderElect, "wait until the Lease says that no other agent works")
	flags.StringVar(&o.rangesURL, "ranges-url", o.rangesURL, "https `URL` of AWS's ip-ranges.json, where --ranges-file is left out")
	flags.DurationVar(&o.refreshInterval, "refresh-interval", o.refreshInterval, "time between two looks at the ranges; a file is also reread when it changes")
	flags.DurationVar(&o.removalHold, "removal-hold", o.removalHold, "how long a prefix that AWS, or a custom file, removes stays open: many are back within a day")
	flags.StringVar(&o.acceptRanges, "accept-ranges", o.acceptRanges, "`SYNCTOKEN` of a document to accept although it was refused, as older, or as lacking or opening too much")
	flags.IntVar(&o.workers, "workers", o.workers, "policies synced side by side")
	flags.IntVar(&o.chunkPeers, "chunk-peers", o.chunkPeers, "number of CIDRs up to which a policy is changed in one write; larger ones first get the union of old and new")
	flags.DurationVar(&o.settle, "settle", o.settle, "time between the two writes of a large change")
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
	if o.chunkPeers < 0 {
		errs = append(errs, fmt.Errorf("invalid --chunk-peers %d: must be at least 0", o.chunkPeers))
	}
	if o.settle < 0 {
		errs = append(errs, fmt.Errorf("invalid --settle %s: must be at least 0s", o.settle))
	}
	return errors.Join(errs...)
}

func serve(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, flags := newOptions(), flag.NewFlagSet(program, flag.ContinueOnError)
	o.addFlags(flags)
	rules, log, status, ok := o.Parse(flags, args, usage, o.validate, stdout, stderr)
	if !ok {
		return status
	}
	klog.SetSlogLogger(log)
	client, events, err := o.clients()
	if err != nil {
		log.Error("no way to the API server; give --kubeconfig", "error", err)
		return cli.ExitUsage
	}
	registry := cli.NewRegistry(program)
	a := agent.New(client, events, agent.Options{
		Compile:     rules,
		Source:      o.source(),
		Namespace:   o.namespace,
		LeaderElect: o.leaderElect,
		Workers:     o.workers,
		ChunkPeers:  o.chunkPeers,
		Settle:      o.settle,
		Metrics:     registry,
	}, log)
	closeHealth, err := o.ServeHealth(a.Ready, registry, log)
	if err == nil {
		defer closeHealth()
		err = a.Run(ctx)
	}
	if err != nil {
		log.Error("failed", "error", err)
		return cli.ExitInvalid
	}
	return cli.ExitOK
}

// fetchTimeout is for the whole of a request, its body included.
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

// clients returns a client that the API server's own priority and fairness sets the pace of, and one for
// Events, which has time.
func (o *options) clients() (client, events *kubernetes.Clientset, err error) {
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	config.UserAgent = agent.Name
	protobufClient(config)
	config.DisableCompression = true // as the control plane's own controllers: it costs both ends more than the network
	if client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, nil, err
	}
	config.QPS, config.Burst = agent.EventsPerSecond, agent.EventsPerSecond
	events, err = kubernetes.NewForConfig(config)
	return client, events, err
}

// protobufClient makes of a config one whose client takes the least time on both ends.
func protobufClient(config *rest.Config) {
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	config.QPS = -1
}
