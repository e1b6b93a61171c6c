package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/measure"
)

// rounds is the number of measurements of each admission check. The checks take turns.
const rounds = 5

// admission is a check that the API server makes before it stores a ConfigMap.
type admission struct {
	name       string
	kind       string   // of the namespaces that it applies to
	userAgents []string // the prefixes of its requests' user agents; nil if it sends none
	processes  []program
}

// measureAdmissions measures the checks that need no other project's programs.
func (b *bench) measureAdmissions(ctx context.Context, creates int) ([][]string, error) {
	progress("starting the webhooks")
	checks := []admission{{name: "no check", kind: kindNone}}
	webhook, err := b.startBareWebhook(ctx)
	if err != nil {
		return nil, err
	}
	defer webhook.Kill()
	checks = append(checks, admission{name: "bare webhook, allows everything", kind: kindBare, processes: []program{webhook}})
	this, err := b.startWebhook(ctx)
	if err != nil {
		return nil, err
	}
	defer this.Kill()
	checks = append(checks, admission{name: "egress-webhook", kind: kindThis, processes: []program{this}})
	if _, err := b.kubectl(ctx, admissionPolicy, "apply", "-f", "-"); err != nil {
		return nil, err
	}
	checks = append(checks, admission{name: "ValidatingAdmissionPolicy, nearest checks", kind: kindCEL})
	for _, kind := range []string{kindThis, kindCEL} {
		if err := b.awaitRefusal(ctx, kind); err != nil {
			return nil, err
		}
	}
	rows, err := b.measureChecks(ctx, checks, creates)
	if err != nil {
		return nil, err
	}
	_, err = b.kubectl(ctx, "", "delete", "validatingwebhookconfigurations,validatingadmissionpolicies,validatingadmissionpolicybindings", "--all")
	return rows, err
}

// measureChecks creates policies in the namespaces of each check in turn, and returns the rows of the table.
func (b *bench) measureChecks(ctx context.Context, checks []admission, creates int) ([][]string, error) {
	results := make([]struct {
		took, p50, p99 []time.Duration
		cpu            time.Duration
		failed, writes int
		peak           int64
	}, len(checks))
	for round := range rounds + 1 {
		for i, check := range checks {
			progress("measuring:", check.name, "round", round, "of", rounds)
			before, err := b.use(check.processes)
			if err != nil {
				return nil, err
			}
			mark, err := b.control.Mark()
			if err != nil {
				return nil, err
			}
			c := b.create(ctx, check.kind, creates)
			if len(c.times) == 0 {
				return nil, fmt.Errorf("%s: no ConfigMap was created: %w", check.name, c.err)
			}
			after, err := b.use(check.processes)
			if err != nil {
				return nil, err
			}
			var writes []string
			if check.userAgents != nil {
				if writes, err = b.awaitLastWrite(ctx, mark, check.userAgents); err != nil {
					return nil, err
				}
			}
			err = cluster.Each(namespaceCount, func(i int) error { return b.deleteConfigMaps(ctx, check.kind, i) })
			if err != nil {
				return nil, err
			}
			if round == 0 { // the first round warms up
				continue
			}
			r := &results[i]
			r.took = append(r.took, c.took)
			r.p50, r.p99 = append(r.p50, c.times[(len(c.times)-1)/2]), append(r.p99, c.times[(len(c.times)-1)*99/100])
			r.cpu, r.peak, r.writes, r.failed = r.cpu+after.cpu-before.cpu, after.peak, r.writes+len(writes), r.failed+c.failed
		}
	}
	var rows [][]string
	for i, check := range checks {
		r := results[i]
		if r.failed > 0 && check.kind != kindKyverno {
			return nil, fmt.Errorf("%s: %d ConfigMaps were not created", check.name, r.failed)
		}
		row := []string{check.name, rounded(measure.Median(r.took)), rounded(measure.Median(r.p50)), rounded(measure.Median(r.p99)),
			strconv.Itoa(r.failed), "", "", strconv.Itoa(r.writes / rounds)}
		if len(check.processes) > 0 {
			row[5], row[6] = rounded(r.cpu/rounds), megabytes(r.peak)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// startBareWebhook registers a webhook for the namespaces of kindBare before it starts it. A create that fails shows
// that the API server calls the webhook, and a later one that succeeds shows that the webhook answers.
func (b *bench) startBareWebhook(ctx context.Context) (*measure.Process, error) {
	address, err := measure.FreeAddress()
	if err != nil {
		return nil, err
	}
	err = b.register(ctx, address, func(configuration *admissionregistrationv1.ValidatingWebhookConfiguration) {
		configuration.Name = "bare-webhook"
		configuration.Webhooks[0].NamespaceSelector.MatchLabels = map[string]string{"bench": kindBare}
	})
	if err != nil {
		return nil, err
	}
	if err := b.awaitDryRun(ctx, kindBare, policy(0), false); err != nil {
		return nil, err
	}
	webhook, err := measure.Start(b.control.Dir, b.self, nil, webhookCommand, address, b.control.Dir)
	if err != nil {
		return nil, err
	}
	if err := b.awaitDryRun(ctx, kindBare, policy(0), true); err != nil {
		webhook.Kill()
		return nil, err
	}
	return webhook, nil
}

// startWebhook starts and registers egress-webhook, for the namespaces of kindThis.
func (b *bench) startWebhook(ctx context.Context) (*measure.Process, error) {
	address, err := measure.FreeAddress()
	if err != nil {
		return nil, err
	}
	health, err := measure.FreeAddress()
	if err != nil {
		return nil, err
	}
	webhook, err := measure.Start(b.control.Dir, filepath.Join(b.programs, "egress-webhook"), nil, "--addr", address, "--http-addr", health,
		"--ranges-file", b.ranges, "--ip-family", "ipv4",
		"--tls-cert-file", filepath.Join(b.control.Dir, "tls.crt"), "--tls-key-file", filepath.Join(b.control.Dir, "tls.key"))
	if err != nil {
		return nil, err
	}
	if err := b.register(ctx, address, func(*admissionregistrationv1.ValidatingWebhookConfiguration) {}); err != nil {
		webhook.Kill()
		return nil, err
	}
	return webhook, nil
}

// register creates the configuration in deploy/ for a webhook at an address. Before, it calls change with the
// configuration.
func (b *bench) register(ctx context.Context, address string, change func(*admissionregistrationv1.ValidatingWebhookConfiguration)) error {
	data, err := os.ReadFile("deploy/base/webhook-configuration.yaml")
	if err != nil {
		return err
	}
	var configuration admissionregistrationv1.ValidatingWebhookConfiguration
	if err := yaml.UnmarshalStrict(data, &configuration); err != nil {
		return err
	}
	bundle, err := os.ReadFile(filepath.Join(b.control.Dir, "ca.crt"))
	if err != nil {
		return err
	}
	url := "https://" + address + "/validate"           // the cluster has no Service network
	configuration.Webhooks = configuration.Webhooks[:1] // without the entry of platform documents
	configuration.Webhooks[0].ClientConfig = admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: bundle}
	change(&configuration)
	_, err = b.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(ctx, &configuration, metav1.CreateOptions{})
	return err
}

// awaitRefusal waits until the API server refuses badPolicy in the namespaces of a kind, and stores a good policy.
func (b *bench) awaitRefusal(ctx context.Context, kind string) error {
	return errors.Join(b.awaitDryRun(ctx, kind, badPolicy, false), b.awaitDryRun(ctx, kind, policy(0), true))
}

// awaitDryRun waits until a dry run of a create in a namespace of a kind succeeds or fails, as isAllowed demands.
func (b *bench) awaitDryRun(ctx context.Context, kind, document string, isAllowed bool) error {
	var last error
	for range 1200 {
		options := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
		_, last = b.client.CoreV1().ConfigMaps(namespace(kind, 0)).Create(ctx, configMap("probe", document), options)
		if (last == nil) == isAllowed {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("namespaces of kind %s: expected allowed to be %t, last answer: %w", kind, isAllowed, last)
}
