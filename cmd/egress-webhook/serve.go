package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/admission"
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
	*cli.Service
	addr              string
	certFile, keyFile string
}

func newOptions() *options { return &options{Service: cli.NewService(), addr: ":8443"} }

func (o *options) addFlags(flags *flag.FlagSet) {
	o.Service.AddFlags(flags)
	flags.StringVar(&o.addr, "addr", o.addr, "`address` that serves POST /validate over TLS")
	flags.StringVar(&o.certFile, "tls-cert-file", o.certFile, "PEM `FILE` with the serving certificate")
	flags.StringVar(&o.keyFile, "tls-key-file", o.keyFile, "PEM `FILE` with its key")
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
	rules, log, status, ok := o.Parse(flags, args, usage, o.validate, stdout, stderr)
	if !ok {
		return status
	}
	certificate, certErr := tls.LoadX509KeyPair(o.certFile, o.keyFile)
	ranges, rangesErr := admission.NewRanges(o.Rules.RangesFile, o.Rules.CustomRanges, log)
	if err := errors.Join(certErr, rangesErr); err != nil {
		log.Error("cannot start", "error", err)
		return cli.ExitUsage
	}
	go ranges.Run(ctx)
	handler := admission.Handler(ranges.Table, rules, log)
	if err := o.run(ctx, admission.NewServer(handler, certificate, log), log); err != nil {
		log.Error("failed", "error", err)
		return cli.ExitInvalid
	}
	return cli.ExitOK
}

// stopTimeout is how long a stop waits for reviews in flight: longer than an API server does.
const stopTimeout = 10 * time.Second

// run serves reviews and health until the context ends, and then lets reviews in flight end.
func (o *options) run(ctx context.Context, reviews *http.Server, log *slog.Logger) error {
	listener, err := net.Listen("tcp", o.addr)
	if err != nil {
		return err
	}
	closeHealth, err := o.ServeHealth(func() (string, bool) { return "serving", ctx.Err() == nil }, cli.NewRegistry(program), log)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer closeHealth()
	failed := make(chan error, 1)
	go func() { failed <- reviews.ServeTLS(listener, "", "") }()
	log.Info("running", "addr", listener.Addr().String())
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	log.Info("stopping")
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return reviews.Shutdown(stopping)
}
