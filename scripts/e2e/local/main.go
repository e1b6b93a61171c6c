// Command local starts a local control plane, runs a command against it, and stops the control plane.
//
//	local PROGRAMS COMMAND [ARG...]
//
// The command finds kubectl in its PATH and an administrator's kubeconfig in KUBECONFIG. CLUSTER_DIR names a folder for
// its files. local deletes the folder in the end.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"egress-agent/scripts/e2e/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "local:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: local PROGRAMS COMMAND [ARG...]")
	}
	programs, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "egress-cluster-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintln(os.Stderr, "starting a local control plane ...")
	c, err := cluster.Start(ctx, programs, dir)
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, args[1], args[2:]...)
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.Env = append(os.Environ(),
		"KUBECONFIG="+c.Kubeconfig, "CLUSTER_DIR="+dir, "PATH="+programs+string(os.PathListSeparator)+os.Getenv("PATH"))
	err = command.Run()
	fmt.Fprintln(os.Stderr, "stopping the control plane ...")
	if stopErr := c.Stop(); err == nil {
		err = stopErr
	}
	return err
}
