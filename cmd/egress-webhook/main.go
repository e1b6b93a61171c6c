// Command egress-webhook refuses a bad policy.json before it is stored. Its verb validate gives the
// same verdicts offline.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"egress-agent/cmd/internal/cli"
)

const program = "egress-webhook"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		switch verb, rest := args[0], args[1:]; verb {
		case "validate":
			return validate(rest, stdin, stdout, stderr)
		case "help":
			return serve(ctx, []string{"--help"}, stdout, stderr)
		default:
			if verb == "" || verb[0] != '-' {
				cli.Complain(stderr, program, fmt.Errorf("unknown verb %q", verb))
				return cli.ExitUsage
			}
		}
	}
	return serve(ctx, args, stdout, stderr)
}
