// Command egress-agent writes one NetworkPolicy for each policy ConfigMap of a cluster. Its commands render and explain
// policies in files, without a cluster, or show the state of a cluster's policies.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"egress-agent/cmd/internal/cli"
)

const program = "egress-agent"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // after the first signal, a second signal ends the program at once
	status := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out, errs := cli.NewOutput(stdout), cli.NewOutput(stderr)
	return cli.Run(program, args,
		func(args []string) int { return serve(ctx, args, stdout, stderr) },
		map[string]func([]string) int{
			"render":    func(args []string) int { return render(args, stdin, out, errs) },
			"explain":   func(args []string) int { return explain(args, stdin, out, errs) },
			"diff":      func(args []string) int { return diff(args, stdin, out, errs) },
			"recommend": func(args []string) int { return recommendPolicy(ctx, args, stdin, out, errs) },
			"audit":     func(args []string) int { return printAudit(args, stdin, out, errs) },
			"mirror":    func(args []string) int { return mirrorPolicies(ctx, args, stdout, stderr) },
			"status":    func(args []string) int { return printStatus(ctx, args, stdin, out, errs) },
		}, errs)
}
