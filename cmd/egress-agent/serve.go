package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"time"

	_ "golang.org/x/crypto/x509roots/fallback" // a scratch image has no system roots
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/agent"
)

const usage = `
egress-agent keeps one NetworkPolicy beside each ConfigMap that is labelled
egress-controller=managed and holds a policy.json. It runs in a cluster, or
beside one with --kubeconfig.

Usage:
  egress-agent [flags]               run
  egress-agent render -f FILE...     print the NetworkPolicies of policies in files

Examples:
  egress-agent --kubeconfig ~/.kube/config --ranges-file ip-ranges.json
  egress-agent render -f policy.yaml --ranges-file ip-ranges.json

Exit status: 0 stopped by a signal, 1 failed, 2 wrong usage.
`

type options struct {
	rules           *cli.Rules
	log             *cli.Log
	kubeconfig      string
	rangesURL       string
	refreshInterval time.Duration
	workers         int
	httpAddr        string
	version         bool
}

func newOptions() *options {
	return &options{
		rules:           cli.NewRules(),
		log:             cli.NewLog(),
		rangesURL:       "https://ip-ranges.amazonaws.com/ip-ranges.json",
		refreshInterval: 15 * time.Minute,
		workers:         4 * runtime.GOMAXPROCS(0), // they mostly wait for the API server
		httpAddr:        ":8080",
	}
}

func (o *options) addFlags(flags *flag.FlagSet) {
	o.rules.AddFlags(flags)
	o.log.AddFlags(flags)
	flags.StringVar(&o.kubeconfig, "kubeconfig", o.kubeconfig, "kubeconfig `FILE`; left out, the Pod's service account")
	flags.StringVar(&o.rangesURL, "ranges-url", o.rangesURL, "`URL` of AWS's ip-ranges.json, where --ranges-file is left out")
	flags.DurationVar(&o.refreshInterval, "refresh-interval", o.refreshInterval, "time between two looks at the ranges")
	flags.IntVar(&o.workers, "workers", o.workers, "policies synced side by side")
	flags.StringVar(&o.httpAddr, "http-addr", o.httpAddr, "`address` that serves /healthz and /readyz")
	flags.BoolVar(&o.version, "version", o.version, "print the version and exit")
}

func (o *options) validate() error {
	var errs []error
	if o.workers < 1 {
		errs = append(errs, fmt.Errorf("invalid --workers %d: must be at least 1", o.workers))
	}
	if o.refreshInterval < time.Second {
		errs = append(errs, fmt.Errorf("invalid --refresh-interval %s: must be at least 1s", o.refreshInterval))
	}
	return errors.Join(errs...)
}

func serve(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, flags := newOptions(), flag.NewFlagSet(program, flag.ContinueOnError)
	o.addFlags(flags)
	if status, ok := cli.Parse(flags, args, usage, stdout, stderr); !ok {
		return status
	}
	if o.version {
		fmt.Fprintln(stdout, cli.Version(program))
		return cli.ExitOK
	}
	rules, err := o.rules.Options()
	logger, logErr := o.log.Logger(stderr)
	if err := errors.Join(err, logErr, o.validate(), cli.NoArguments(flags)); err != nil {
		cli.Complain(stderr, program, err)
		return cli.ExitUsage
	}
	klog.SetSlogLogger(logger)

	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		logger.Error("no way to the API server; give --kubeconfig", "error", err)
		return cli.ExitUsage
	}
	config.UserAgent = agent.Name
	config.QPS = -1 // the API server's own priority and fairness sets the pace
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		logger.Error("no way to the API server", "error", err)
		return cli.ExitUsage
	}
	source := agent.Source{File: o.rules.RangesFile, URL: o.rangesURL, Custom: o.rules.CustomRanges, Interval: o.refreshInterval}
	a, err := agent.New(client, source, rules, o.workers, logger)
	if err != nil {
		logger.Error("failed", "error", err)
		return cli.ExitInvalid
	}
	return runAgent(ctx, a, o.httpAddr, logger)
}

// runAgent serves health until the agent has stopped.
func runAgent(ctx context.Context, a *agent.Agent, address string, logger *slog.Logger) int {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		logger.Error("cannot serve health", "error", err)
		return cli.ExitInvalid
	}
	server := cli.HealthServer(func() bool { return a.Ready() })
	defer server.Close()
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("health is not served", "error", err)
		}
	}()
	if err := a.Run(ctx); err != nil {
		logger.Error("failed", "error", err)
		return cli.ExitInvalid
	}
	return cli.ExitOK
}
