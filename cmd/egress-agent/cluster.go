package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/pager"
	"k8s.io/klog/v2"

	"egress-agent/pkg/agent"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
	"egress-agent/pkg/status"
)

// What status reads a cluster by.
const (
	dialTimeout = 10 * time.Second
	pageTimeout = time.Minute // a page may have 500 NetworkPolicies of thousands of CIDRs
)

// clusterState is what was read.
type clusterState struct {
	server  string
	cluster status.Cluster
	ranges  *status.Ranges // without its age; nil for none
}

// source is a kubeconfig, as messages name it.
func (o *statusOptions) source(rules *clientcmd.ClientConfigLoadingRules) string {
	if o.kubeconfig != "" {
		return "kubeconfig " + o.kubeconfig
	}
	return "kubeconfig " + strings.Join(rules.GetLoadingPrecedence(), ", ")
}

// connect finds the cluster as kubectl does.
func (o *statusOptions) connect() (client *kubernetes.Clientset, server, source string, err error) {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // what is wrong is said once, here
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.kubeconfig
	source = o.source(rules)
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err):
		return nil, "", "", fmt.Errorf("no cluster: %s is not there, or empty; give --kubeconfig FILE or set KUBECONFIG", source)
	case err != nil:
		return nil, "", "", fmt.Errorf("%s: %w; correct it, or give another with --kubeconfig FILE", source, err)
	}
	protobufClient(config)
	config.UserAgent = agent.Name + "-status"
	config.Timeout = pageTimeout
	config.Dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	config.WarningHandler = rest.NoWarnings{}
	if client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, "", "", fmt.Errorf("%s: %w", source, err)
	}
	return client, config.Host, source, nil
}

// read reads the ranges and the policies. options are taken for the agent's if it has saved none.
func (o *statusOptions) read(ctx context.Context, options netpol.Options, progress *progress, note func(format string, args ...any)) (*clusterState, error) {
	table, err := o.rules.Table(func(message string) { note("note: %s", message) })
	if err != nil {
		return nil, err
	}
	client, server, source, err := o.connect()
	if err != nil {
		return nil, err
	}
	defer progress.start(server)()
	f := &clusterState{server: server, cluster: status.Cluster{Options: options, AgentNamespace: o.namespace}}
	explain := func(err error, what string) error { return o.explain(err, what, server, source) }
	selector := policy.Label + "=" + policy.LabelValue
	f.cluster.ConfigMaps, err = list[*corev1.ConfigMap](ctx, progress, selector, func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return client.CoreV1().ConfigMaps(o.tenant).List(ctx, options)
	})
	if err != nil {
		return nil, explain(err, "ConfigMaps")
	}
	f.cluster.NetworkPolicies, err = list[*networkingv1.NetworkPolicy](ctx, progress, "", func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return client.NetworkingV1().NetworkPolicies(o.tenant).List(ctx, options)
	})
	if err != nil {
		return nil, explain(err, "NetworkPolicies")
	}
	if o.rules.RangesFile != "" {
		f.cluster.Table, f.ranges = table, status.NewRanges(o.rules.RangesFile, table)
		return f, nil
	}
	err = f.readRanges(ctx, client, o.namespace, note)
	f.cluster.Table = awsranges.Merge(f.cluster.Table, table)
	if err != nil {
		return nil, explain(err, "ConfigMap "+agent.RangesName)
	}
	return f, nil
}

// list reads all objects of a kind in pages, without what is of no use here.
func list[T metav1.Object](ctx context.Context, progress *progress, selector string, page pager.ListPageFunc) ([]T, error) {
	var all []T
	err := pager.New(page).EachListItem(ctx, metav1.ListOptions{LabelSelector: selector}, func(object runtime.Object) error {
		item, ok := object.(T)
		if !ok {
			return fmt.Errorf("the API server lists a %T", object)
		}
		item.SetManagedFields(nil)
		all = append(all, item)
		progress.count.Add(1)
		return nil
	})
	return all, err
}

// readRanges reads those that the agent keeps. That they may not be read is no reason to say nothing.
func (f *clusterState) readRanges(ctx context.Context, client kubernetes.Interface, namespace string, note func(format string, args ...any)) error {
	name := namespace + "/" + agent.RangesName
	configMap, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, agent.RangesName, metav1.GetOptions{})
	switch {
	case apierrors.IsForbidden(err):
		note("note: ConfigMap %s may not be read: the age of the AWS ranges is not known", name)
		f.cluster.RangesIncomplete = true
		return nil
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	}
	f.readOptions(configMap.Annotations[agent.OptionsAnnotation])
	custom, err := readCustom(configMap)
	if err != nil {
		note("note: the custom ranges in ConfigMap %s cannot be read: %v", name, err)
		f.cluster.RangesIncomplete = true
	}
	f.cluster.Table = custom
	data, ok := configMap.BinaryData[agent.RangesKey]
	if !ok {
		return nil // it has custom ranges alone
	}
	table, err := awsranges.Read(bytes.NewReader(data))
	if err != nil {
		note("note: the AWS ranges in ConfigMap %s cannot be read: %v", name, err)
		f.cluster.RangesIncomplete = true
		return nil
	}
	f.cluster.Table = awsranges.Merge(table, custom)
	f.ranges = status.NewRanges("ConfigMap "+name, table)
	f.ranges.Refused = oneLine(configMap.Annotations[agent.RefusedAnnotation])
	if confirmed, err := time.Parse(time.RFC3339, configMap.Annotations[agent.ConfirmedAnnotation]); err == nil {
		f.ranges.Confirmed = &confirmed
	}
	return nil
}

// readOptions takes the options that the agent saved, which a reader's flags need not match. Without them, the agent is
// older than this program, or has ranges that it could not save.
func (f *clusterState) readOptions(saved string) {
	options, err := netpol.ParseOptions(saved)
	if err != nil {
		f.cluster.RangesIncomplete = true
		return
	}
	f.cluster.Options = options
}

// readCustom returns the custom ranges that the agent saved; nil if there are none.
func readCustom(configMap *corev1.ConfigMap) (*awsranges.Table, error) {
	data, ok := configMap.BinaryData[agent.CustomKey]
	if !ok {
		return nil, nil
	}
	return awsranges.DecodeCustom(data)
}

// explain says what to do about a failure to read.
func (o *statusOptions) explain(err error, what, server, source string) error {
	var unreached *url.Error
	switch {
	case apierrors.IsForbidden(err) && o.tenant == "":
		return fmt.Errorf("%s may not be listed in all namespaces with %s: give -n NAMESPACE", what, source)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%s may not be listed in namespace %s with %s: it takes the right to list configmaps and networkpolicies there", what, o.tenant, source)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s does not accept the credentials of %s: log in again, or give another with --kubeconfig FILE", server, source)
	case errors.As(err, &unreached):
		return fmt.Errorf("no answer from %s, the server in %s: %w; is the cluster up, and the server right?", server, source, unreached.Err)
	}
	return fmt.Errorf("read %s from %s: %w", what, server, err)
}

// oneLine makes a message of others' fit for one line of a terminal.
func oneLine(message string) string {
	return strings.Join(strings.FieldsFunc(message, func(r rune) bool { return r == '\n' || !strconv.IsPrint(r) }), " ")
}
