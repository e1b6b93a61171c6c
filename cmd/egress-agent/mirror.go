package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/klog/v2"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/mirror"
)

const mirrorUsage = `
egress-agent mirror copies the policies of another cluster, the hub, into the
namespaces of the same name that exist in this cluster. It runs until a signal
stops it. deploy/components/mirror has its Deployment and its rights.

Usage:
  egress-agent mirror --from-kubeconfig FILE [flags]

Examples:
  egress-agent mirror --from-kubeconfig hub.kubeconfig --kubeconfig ~/.kube/config

A copy has the label egress-controller/mirrored-from; mirror never changes another
ConfigMap. While the hub is away, the last copies stay. mirror deletes a copy only
after a complete list without its policy, and after the hub says that it is gone.
If that would delete more than a fifth of the copies within an hour, it deletes
none, and logs the number and a TOKEN for --accept-deletions.

Exit status: 0 stopped by a signal, 1 failed, 2 wrong usage.
`

type mirrorOptions struct {
	*cli.Service
	fromKubeconfig  string
	kubeconfig      string
	namespace       string
	acceptDeletions string
}

func (o *mirrorOptions) addFlags(flags *flag.FlagSet) {
	o.Service.AddFlags(flags)
	flags.StringVar(&o.fromKubeconfig, "from-kubeconfig", "", "kubeconfig `FILE` of the hub; it is read again when it changes")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig `FILE` of this cluster; default: the Pod's service account")
	flags.StringVar(&o.namespace, "namespace", newOptions().namespace, "the `namespace` of both programs, into which nothing is copied; it has the ConfigMap "+mirror.Name)
	flags.StringVar(&o.acceptDeletions, "accept-deletions", "", "`TOKEN` of held deletions to do, although they are too many")
}

func (o *mirrorOptions) validate() error {
	var errs []error
	if o.fromKubeconfig == "" {
		errs = append(errs, errors.New("give --from-kubeconfig FILE, a kubeconfig of the hub"))
	}
	if problems := validation.IsDNS1123Label(o.namespace); len(problems) > 0 {
		errs = append(errs, fmt.Errorf("invalid --namespace %q: %s", o.namespace, problems[0]))
	}
	if o.acceptDeletions != "" && !mirror.IsToken(o.acceptDeletions) {
		errs = append(errs, fmt.Errorf("invalid --accept-deletions %q: must be the token of a log line, such as 3f9a0c5b7e21", o.acceptDeletions))
	}
	return errors.Join(errs...)
}

func mirrorPolicies(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, flags := &mirrorOptions{Service: cli.NewService()}, flag.NewFlagSet(program+" mirror", flag.ContinueOnError)
	o.Policy = nil
	o.addFlags(flags)
	_, log, status, ok := o.Parse(flags, args, mirrorUsage, o.validate, stdout, stderr)
	if !ok {
		return status
	}
	klog.SetSlogLogger(log)
	clients, err := o.clients()
	if err != nil {
		log.Error("create Kubernetes client failed", "error", err, "hint", "give --kubeconfig")
		return cli.ExitUsage
	}
	registry := cli.NewRegistry(program)
	m := mirror.New(clients, mirror.Options{
		HubKubeconfig:   o.fromKubeconfig,
		Namespace:       o.namespace,
		AcceptDeletions: o.acceptDeletions,
		Metrics:         registry,
	}, log)
	closeHealth, err := o.ServeHealth(m.Ready, registry, log)
	if err != nil {
		log.Error("run mirror failed", "error", err)
		return cli.ExitInvalid
	}
	defer closeHealth()
	m.Run(ctx)
	return cli.ExitOK
}

// clients returns clients of this cluster without a rate limit, as the agent's.
func (o *mirrorOptions) clients() (clients mirror.Clients, err error) {
	config, err := controllerConfig(o.kubeconfig, mirror.Name)
	if err != nil {
		return clients, err
	}
	if clients.API, err = kubernetes.NewForConfig(config); err != nil {
		return clients, err
	}
	clients.Metadata, err = metadata.NewForConfig(config)
	return clients, err
}
