// Command egress-webhook denies an invalid policy.json before the API server stores it. Its command validate
// prints the same verdicts offline.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"egress-agent/cmd/internal/cli"
)

const program = "egress-webhook"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program immediately
	status := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out, errs := cli.NewOutput(stdout), cli.NewOutput(stderr)
	return cli.Run(program, args,
		func(args []string) int { return serve(ctx, args, stdout, stderr) },
		map[string]func([]string) int{
			"validate": func(args []string) int { return validate(args, stdin, out, errs) },
		}, errs)
}
