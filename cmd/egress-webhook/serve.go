package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/admission"
	"egress-agent/pkg/awsranges"
)

const usage = `
egress-webhook is a validating admission webhook: an API server asks it, at
POST /validate over TLS, about every ConfigMap that is labelled
egress-controller=managed, and it refuses those whose policy.json is wrong.

Usage:
  egress-webhook --tls-cert-file FILE --tls-key-file FILE [flags]   run
  egress-webhook validate -f FILE...                                judge policies in files

Examples:
  egress-webhook --tls-cert-file tls.crt --tls-key-file tls.key --ranges-file ip-ranges.json
  egress-webhook validate -f policy.yaml

Exit status: 0 stopped by a signal, 1 failed, 2 wrong usage or unreadable input.
`

type options struct {
	rules             *cli.Rules
	log               *cli.Log
	addr, httpAddr    string
	certFile, keyFile string
	version           bool
}

func newOptions() *options {
	return &options{rules: cli.NewRules(), log: cli.NewLog(), addr: ":8443", httpAddr: ":8080"}
}

func (o *options) addFlags(flags *flag.FlagSet) {
	o.rules.AddFlags(flags)
	o.log.AddFlags(flags)
	flags.StringVar(&o.addr, "addr", o.addr, "`address` that serves POST /validate over TLS")
	flags.StringVar(&o.httpAddr, "http-addr", o.httpAddr, "`address` that serves /healthz and /readyz")
	flags.StringVar(&o.certFile, "tls-cert-file", o.certFile, "PEM `FILE` with the serving certificate")
	flags.StringVar(&o.keyFile, "tls-key-file", o.keyFile, "PEM `FILE` with its key")
	flags.BoolVar(&o.version, "version", o.version, "print the version and exit")
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
	certificate, certErr := tls.LoadX509KeyPair(o.certFile, o.keyFile)
	table, tableErr := o.rules.Table()
	if err := errors.Join(certErr, tableErr); err != nil {
		logger.Error("cannot start", "error", err)
		return cli.ExitUsage
	}
	if table.HasAWS() {
		logger.Info("AWS ranges in use", "syncToken", table.SyncToken(), "createDate", table.CreateDate(), "rows", len(table.Rows()))
	}
	handler := admission.Handler(func() *awsranges.Table { return table }, rules, logger)
	if err := runServers(ctx, admission.NewServer(handler, certificate, logger), o.addr, o.httpAddr, logger); err != nil {
		logger.Error("failed", "error", err)
		return cli.ExitInvalid
	}
	return cli.ExitOK
}

// stopTimeout is how long a stop waits for reviews in flight: longer than an API server does.
const stopTimeout = 10 * time.Second

// runServers serves reviews and health until the context ends, and then lets reviews in flight end.
func runServers(ctx context.Context, reviews *http.Server, addr, httpAddr string, logger *slog.Logger) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	healthListener, err := net.Listen("tcp", httpAddr)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	health := cli.HealthServer(func() bool { return ctx.Err() == nil })
	defer health.Close()
	failed := make(chan error, 2)
	go func() { failed <- health.Serve(healthListener) }()
	go func() { failed <- reviews.ServeTLS(listener, "", "") }()
	logger.Info("running", "addr", listener.Addr().String(), "httpAddr", healthListener.Addr().String())
	select {
	case err := <-failed:
		return errors.Join(err, reviews.Close())
	case <-ctx.Done():
	}
	logger.Info("stopping")
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return reviews.Shutdown(stopping)
}
