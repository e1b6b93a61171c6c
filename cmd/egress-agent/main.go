// Command egress-agent keeps one NetworkPolicy beside each policy ConfigMap of a cluster. Its verbs
// walk the same line offline.
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

const program = "egress-agent"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		switch verb, rest := args[0], args[1:]; verb {
		case "render":
			return render(rest, stdin, stdout, stderr)
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
