package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"egress-agent/scripts/e2e/measure"
)

// maxKyverno is the largest number of ConfigMaps for Kyverno, which needs many times as long as the others.
const maxKyverno = 2000

// kyvernoUserAgents are the user agents of both programs.
var kyvernoUserAgents = []string{"kyverno/", "background-controller/"}

// kyverno are the programs of Kyverno.
type kyverno struct{ dir, version string }

// findKyverno checks that a folder has Kyverno's programs and CustomResourceDefinitions.
func findKyverno(dir string) (*kyverno, error) {
	for _, name := range []string{"kyverno", "background-controller", "crds"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("%s is no folder with Kyverno: %w", dir, err)
		}
	}
	version, err := os.ReadFile(filepath.Join(dir, "version"))
	if errors.Is(err, os.ErrNotExist) {
		return &kyverno{dir, "of an unknown version"}, nil
	}
	return &kyverno{dir, strings.TrimSpace(string(version))}, err
}

// String returns the version for the tables. k may be nil.
func (k *kyverno) String() string {
	if k == nil {
		return "without Kyverno"
	}
	return "Kyverno " + k.version
}

// settings are those of Kyverno's settings that bound the number of objects and requests.
type settings struct {
	name         string
	threshold    int      // the number of UpdateRequests at which Kyverno drops new ones
	inBoth, only []string // flags of both programs, and of background-controller only
}

var (
	chartSettings  = settings{name: "Kyverno, as its chart sets it", threshold: 1000}
	raisedSettings = settings{name: "Kyverno, limits raised", threshold: 100_000,
		inBoth: []string{"--clientRateLimitQPS=5000", "--clientRateLimitBurst=10000"}, only: []string{"--genWorkers=50"}}
)

// withKyverno are the rows that measureKyverno adds to both tables.
type withKyverno struct{ admissions, applies [][]string }

func (b *bench) measureKyverno(ctx context.Context, counts []int, creates int) (rows withKyverno, err error) {
	progress("installing Kyverno's CustomResourceDefinitions")
	if _, err := b.kubectl(ctx, "", "apply", "--server-side", "--recursive", "-f", filepath.Join(b.kyverno.dir, "crds")); err != nil {
		return rows, err
	}
	if _, err := b.kubectl(ctx, "", "wait", "--for=condition=Established", "--timeout=5m", "customresourcedefinitions", "--all"); err != nil {
		return rows, err
	}
	if _, err := b.kubectl(ctx, kyvernoObjects, "apply", "-f", "-"); err != nil {
		return rows, err
	}
	if creates > 0 {
		if rows.admissions, err = b.measureKyvernoValidate(ctx, creates); err != nil {
			return rows, err
		}
	}
	for _, count := range counts {
		if count > maxKyverno {
			continue
		}
		for _, s := range []settings{chartSettings, raisedSettings} {
			row, err := b.measureApplier(ctx, applier{name: s.name, userAgents: kyvernoUserAgents, kind: kindKyverno, mayLose: true,
				start: func(ctx context.Context) ([]program, func(context.Context) error, error) {
					return b.startKyverno(ctx, s, kyvernoGenerate)
				}}, count)
			if err != nil {
				return rows, err
			}
			rows.applies = append(rows.applies, row)
		}
	}
	return rows, nil
}

// measureKyvernoValidate measures Kyverno's validate, and again the floor, because other processes share the machine.
func (b *bench) measureKyvernoValidate(ctx context.Context, creates int) (rows [][]string, err error) {
	running, stop, err := b.startKyverno(ctx, chartSettings, kyvernoValidate)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop(ctx)) }()
	if err := b.awaitRefusal(ctx, kindKyverno); err != nil {
		return nil, err
	}
	return b.measureChecks(ctx, []admission{
		{name: "no check, while Kyverno runs", kind: kindNone},
		{name: "Kyverno's validate, nearest checks", kind: kindKyverno, userAgents: kyvernoUserAgents, processes: running},
	}, creates)
}

// startKyverno starts the admission controller and the background controller, and applies a policy. The flags are those
// of the chart's Deployments, but for the addresses, which differ because both run on this machine. stop kills both
// programs and deletes what they created.
func (b *bench) startKyverno(ctx context.Context, s settings, policy string) (running []program, stop func(context.Context) error, err error) {
	config := fmt.Sprintf(kyvernoConfig, s.threshold)
	if _, err := b.kubectl(ctx, config, "apply", "-f", "-"); err != nil {
		return nil, nil, err
	}
	stop = func(ctx context.Context) error {
		for _, p := range running {
			p.(*measure.Supervised).Kill()
		}
		return b.removeKyverno(ctx)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stop(ctx))
		}
	}()
	var ports []string
	for range 5 {
		address, err := measure.FreeAddress()
		if err != nil {
			return nil, stop, err
		}
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, stop, err
		}
		ports = append(ports, port)
	}
	shared := append([]string{"--disableMetrics=false", "--otelConfig=prometheus", "--resyncPeriod=15m", "--enableConfigMapCaching=true",
		"--enableDeferredLoading=true", "--maxAPICallResponseLength=2000000", "--apiCallTimeout=30s", "--maxGlobalContextEntries=0",
		"--loggingFormat=text", "--v=2", "--omitEvents=PolicyApplied,PolicySkipped", "--enablePolicyException=false",
		"--enableReporting=validate,mutate,mutateExisting,imageVerify,generate"}, s.inBoth...)
	start := func(program, account string, args ...string) error {
		kubeconfig, err := b.control.ServiceAccountKubeconfig(ctx, "kyverno", account)
		if err != nil {
			return err
		}
		environment := []string{"KYVERNO_NAMESPACE=kyverno", "KYVERNO_SVC=kyverno-svc", "KYVERNO_POD_NAME=" + account + "-0",
			"KYVERNO_DEPLOYMENT=" + account, "KYVERNO_SERVICEACCOUNT_NAME=" + account, "KYVERNO_ROLE_NAME=kyverno:admission-controller",
			"INIT_CONFIG=kyverno", "METRICS_CONFIG=kyverno-metrics"}
		p, err := measure.Supervise(func() (*measure.Process, error) {
			return measure.Start(b.control.Dir, filepath.Join(b.kyverno.dir, program), environment,
				append(append([]string{"--kubeconfig=" + kubeconfig}, shared...), args...)...)
		})
		if err == nil {
			running = append(running, p)
		}
		return err
	}
	if err := start("kyverno", "kyverno-admission-controller",
		"--serverIP=127.0.0.1:"+ports[0], "--webhookServerHost=127.0.0.1", "--webhookServerPort="+ports[0], "--servicePort=443",
		"--metricsPort="+ports[1], "--controllerRuntimeMetricsAddress=127.0.0.1:"+ports[2],
		"--caSecretName=kyverno-svc.kyverno.svc.kyverno-tls-ca", "--tlsSecretName=kyverno-svc.kyverno.svc.kyverno-tls-pair", "--tlsKeyAlgorithm=RSA",
		"--backgroundServiceAccountName=system:serviceaccount:kyverno:kyverno-background-controller",
		"--reportsServiceAccountName=system:serviceaccount:kyverno:kyverno-reports-controller",
		"--admissionReports=true", "--maxAdmissionReports=1000", "--autoUpdateWebhooks=true", "--generateValidatingAdmissionPolicy=true",
	); err != nil {
		return nil, stop, err
	}
	if err := start("background-controller", "kyverno-background-controller", append([]string{
		"--metricsPort=" + ports[3], "--controllerRuntimeMetricsAddress=127.0.0.1:" + ports[4]}, s.only...)...); err != nil {
		return nil, stop, err
	}
	// Kyverno checks its policies with a webhook, too. Until this answers, the policy is refused.
	var applyErr error
	err = measure.Await(ctx, "Kyverno to accept its policy", func() bool {
		configurations, listErr := b.kubectl(ctx, "", "get", "validatingwebhookconfigurations", "-o", "name")
		if listErr != nil || !strings.Contains(configurations, "kyverno-policy-validating-webhook-cfg") {
			return false
		}
		_, applyErr = b.kubectl(ctx, policy, "apply", "-f", "-")
		return applyErr == nil || strings.Contains(applyErr.Error(), "denied the request")
	})
	return running, stop, errors.Join(err, applyErr)
}

// removeKyverno deletes what Kyverno created, after its programs have ended. The webhooks come first, because without
// an answer of theirs the API server refuses requests.
func (b *bench) removeKyverno(ctx context.Context) error {
	for _, args := range [][]string{
		{"delete", "validatingwebhookconfigurations,mutatingwebhookconfigurations", "--all"},
		{"delete", "clusterpolicies.kyverno.io", "--all", "--wait=false"},
		{"delete", "updaterequests.kyverno.io,leases", "--all", "--namespace", "kyverno", "--wait=false"},
		{"delete", "ephemeralreports.reports.kyverno.io", "--all", "--all-namespaces", "--wait=false"},
	} {
		if _, err := b.kubectl(ctx, "", args...); err != nil {
			return err
		}
	}
	return nil
}

// kyvernoObjects are the namespace and the accounts of the chart. The accounts may do everything, so that no missing
// right slows Kyverno down.
const kyvernoObjects = `apiVersion: v1
kind: Namespace
metadata: {name: kyverno}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: kyverno-admission-controller, namespace: kyverno}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: kyverno-background-controller, namespace: kyverno}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "kyverno:admission-controller"}
rules:
  - {apiGroups: ["*"], resources: ["*"], verbs: ["*"]}
  - {nonResourceURLs: ["*"], verbs: ["*"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kyverno}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "kyverno:admission-controller"}
subjects:
  - {kind: ServiceAccount, name: kyverno-admission-controller, namespace: kyverno}
  - {kind: ServiceAccount, name: kyverno-background-controller, namespace: kyverno}
  - {kind: ServiceAccount, name: kyverno-reports-controller, namespace: kyverno}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kyverno-metrics, namespace: kyverno}
data:
  namespaces: '{"exclude": [], "include": []}'
`

// kyvernoConfig is the chart's ConfigMap, with the threshold as parameter. Its webhooks select only the namespaces of
// kindKyverno, so that the floor is measured without Kyverno.
const kyvernoConfig = `apiVersion: v1
kind: ConfigMap
metadata: {name: kyverno, namespace: kyverno}
data:
  enableDefaultRegistryMutation: "true"
  defaultRegistry: registry.example.com
  generateSuccessEvents: "false"
  excludeGroups: system:nodes
  resourceFilters: >-
    [Event,*,*] [*/*,kube-system,*] [*/*,kube-public,*] [*/*,kube-node-lease,*] [Node,*,*] [Node/?*,*,*] [APIService,*,*]
    [APIService/?*,*,*] [TokenReview,*,*] [SubjectAccessReview,*,*] [SelfSubjectAccessReview,*,*] [Binding,*,*] [Pod/binding,*,*]
    [ReplicaSet,*,*] [ReplicaSet/?*,*,*] [EphemeralReport,*,*] [ClusterEphemeralReport,*,*]
  updateRequestThreshold: "%d"
  webhooks: '{"namespaceSelector": {"matchExpressions": [{"key": "bench", "operator": "In", "values": ["` + kindKyverno + `"]}]}}'
`
