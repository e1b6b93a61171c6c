package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/admission"
	"egress-agent/pkg/audit"
)

const usage = `
egress-webhook is a validating admission webhook. API servers send it reviews of
ConfigMaps with the label egress-controller=managed, by POST /validate over TLS.
It denies a ConfigMap whose policy.json is invalid, or opens what a platform
document closes.

Usage:
  egress-webhook --tls-cert-file FILE --tls-key-file FILE [flags]   run
  egress-webhook validate -f FILE...                                check policies in files

Examples:
  egress-webhook --tls-cert-file tls.crt --tls-key-file tls.key --ranges-file ip-ranges.json
  egress-webhook validate -f policy.yaml

Exit status: 0 stopped by a signal, 1 failed, 2 wrong usage or unreadable input.
`

type options struct {
	*cli.Service
	addr              string
	certFile, keyFile string
	platformFile      string
	audit             bool
}

func newOptions() *options { return &options{Service: cli.NewService(), addr: ":8443"} }

func (o *options) addFlags(flags *flag.FlagSet) {
	o.Service.AddFlags(flags)
	flags.StringVar(&o.addr, "addr", o.addr, "`address` that serves POST /validate over TLS")
	flags.StringVar(&o.certFile, "tls-cert-file", o.certFile, "PEM `FILE` with the serving certificate")
	flags.StringVar(&o.platformFile, "platform-file", o.platformFile, "read the platform documents from `FILE`, which the agent keeps in the ConfigMap egress-platform")
	flags.BoolVar(&o.audit, "audit", o.audit, "write a line of JSON to standard output for each changed policy that is admitted: who, what it opens and closes")
	flags.StringVar(&o.keyFile, "tls-key-file", o.keyFile, "PEM `FILE` with the key of the certificate")
}

func (o *options) validate() error {
	if o.certFile == "" || o.keyFile == "" {
		return errors.New("no serving certificate: give --tls-cert-file and --tls-key-file")
	}
	return nil
}

func serve(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, flags := newOptions(), flag.NewFlagSet(program, flag.ContinueOnError)
	o.addFlags(flags)
	policyOptions, log, status, ok := o.Parse(flags, args, usage, o.validate, stdout, stderr)
	if !ok {
		return status
	}
	tuneGC()
	certificate, certErr := admission.NewCertificate(o.certFile, o.keyFile, log)
	ranges, rangesErr := admission.NewRanges(o.Policy.RangesFile, o.Policy.Custom(), log)
	if err := errors.Join(certErr, rangesErr); err != nil {
		log.Error("start failed", "error", err)
		return cli.ExitUsage
	}
	documents := admission.NewPlatform(o.platformFile, policyOptions, log)
	go certificate.Run(ctx)
	go ranges.Run(ctx)
	go documents.Run(ctx)
	registry := cli.NewRegistry(program)
	metrics := admission.NewMetrics(registry, certificate, ranges, documents)
	rules := func() admission.Rules { return documents.RulesWith(ranges.Table(), policyOptions) }
	var trail *audit.Log
	if o.audit {
		trail = audit.NewLog(stdout, program, time.Now)
	}
	handler := closeWhenStopping(ctx, admission.Handler(rules, trail, metrics, log))
	limitConnections := func(l net.Listener) net.Listener { return admission.LimitConnections(l, metrics) }
	if err := o.run(ctx, admission.NewServer(handler, certificate, metrics, log), limitConnections, registry, log); err != nil {
		log.Error("serve failed", "error", err)
		return cli.ExitInvalid
	}
	return cli.ExitOK
}

// tuneGC makes the garbage collector run less often, unless the environment sets GOGC or GOMEMLIMIT. Apart from the
// ranges the live heap is small, and a review adds little to it. A higher percentage is hardly faster, and leaves more
// garbage after large reviews.
func tuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(350)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(48 << 20)
	}
}

const (
	// drainTime is how long the webhook accepts reviews after readiness fails. Until then API servers and nodes have
	// learned that this Pod is gone, also on a busy machine.
	drainTime = 10 * time.Second
	// stopTimeout bounds the wait for reviews in flight. It is longer than the timeout of an API server.
	stopTimeout = 10 * time.Second
)

// run serves reviews and health until ctx ends. Then readiness fails, run serves for drainTime, and finally it waits
// for the reviews in flight.
func (o *options) run(ctx context.Context, reviews *http.Server, limitConnections func(net.Listener) net.Listener, metrics prometheus.Gatherer, log *slog.Logger) error {
	listener, err := cli.Listen("addr", o.addr)
	if err != nil {
		return err
	}
	closeHealth, err := o.ServeHealth(readiness(ctx), metrics, log)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer closeHealth()
	failed := make(chan error, 1)
	go func() { failed <- reviews.ServeTLS(limitConnections(listener), "", "") }()
	log.Info("running", "addr", listener.Addr().String())
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	log.Info("draining reviews", "duration", drainTime)
	select {
	case err := <-failed:
		return err
	case <-time.After(drainTime):
	}
	stopContext, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return reviews.Shutdown(stopContext)
}

// closeWhenStopping asks clients to close their connection after ctx ends. Their next connection reaches another Pod.
// Without closeWhenStopping, Shutdown closes idle connections and may lose a request on the way.
func closeWhenStopping(ctx context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ctx.Err() != nil {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// readiness returns the readiness check: ok is false after ctx ends.
func readiness(ctx context.Context) func() (status string, ok bool) {
	return func() (string, bool) {
		if ctx.Err() != nil {
			return "stopping", false
		}
		return "serving", true
	}
}
