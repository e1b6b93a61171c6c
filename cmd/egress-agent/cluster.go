package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"slices"
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
	"egress-agent/pkg/analysis/flows"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
	"egress-agent/pkg/status"
)

// dialTimeout limits a connection to the API server; requestTimeout limits a request. A page of a list can have 500
// NetworkPolicies with thousands of CIDRs each.
const (
	dialTimeout    = 10 * time.Second
	requestTimeout = time.Minute
)

// clusterState has the objects and the ranges that status read from a cluster.
type clusterState struct {
	server  string // the URL of the API server
	cluster status.Cluster
	ranges  *status.Ranges // without the age; nil if unknown
	pods    *flows.Cluster // nil if status needs none
}

// kubeconfigName returns the name of the kubeconfig for messages.
func kubeconfigName(rules *clientcmd.ClientConfigLoadingRules) string {
	if rules.ExplicitPath != "" {
		return "kubeconfig " + rules.ExplicitPath
	}
	return "kubeconfig " + strings.Join(rules.GetLoadingPrecedence(), ", ")
}

// connect returns a client for the cluster that kubectl would use. kubeconfig may be empty. verb is the verb of the
// command. server is the URL of the API server, and source the name of the kubeconfig.
func connect(kubeconfig, verb string) (client *kubernetes.Clientset, server, source string, err error) {
	// Otherwise client-go also logs the errors that connect and describeError return.
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	source = kubeconfigName(rules)
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err):
		return nil, "", "", fmt.Errorf("no cluster: %s is missing or empty; give --kubeconfig FILE or set KUBECONFIG", source)
	case err != nil:
		return nil, "", "", fmt.Errorf("%s: %w; correct it or give another one with --kubeconfig FILE", source, err)
	}
	useProtobuf(config)
	config.UserAgent = agent.Name + "-" + verb
	config.Timeout = requestTimeout
	config.Dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	config.WarningHandler = rest.NoWarnings{}
	if client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, "", "", fmt.Errorf("%s: %w", source, err)
	}
	return client, config.Host, source, nil
}

// read reads the policies, the NetworkPolicies of the same namespaces, and the AWS ranges. It uses options if the agent
// has not saved its options in the cluster. note prints a note.
func (o *statusOptions) read(ctx context.Context, options netpol.Options, progress *progress, note func(format string, args ...any)) (*clusterState, error) {
	table, err := o.policyFlags.Table(func(message string) { note("note: %s", message) })
	if err != nil {
		return nil, err
	}
	client, server, source, err := connect(o.kubeconfig, "status")
	if err != nil {
		return nil, err
	}
	defer progress.start(server)()
	state := &clusterState{server: server, cluster: status.Cluster{Options: options, AgentNamespace: o.agentNamespace}}
	describe := func(err error, object string) error { return o.describeError(err, object, server, source) }
	selector := policy.Label + "=" + policy.LabelValue
	state.cluster.ConfigMaps, err = listAll[*corev1.ConfigMap](ctx, progress, selector, func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return client.CoreV1().ConfigMaps(o.tenantNamespace).List(ctx, options)
	})
	if err != nil {
		return nil, describe(err, "ConfigMaps")
	}
	state.cluster.NetworkPolicies, err = listAll[*networkingv1.NetworkPolicy](ctx, progress, "", func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return client.NetworkingV1().NetworkPolicies(o.tenantNamespace).List(ctx, options)
	})
	if err != nil {
		return nil, describe(err, "NetworkPolicies")
	}
	if len(o.logs.files) > 0 && o.logs.pods == "" {
		if state.pods, err = readPods(ctx, client, o.tenantNamespace, progress, note); err != nil {
			return nil, describe(err, "pods and services")
		}
	}
	if o.policyFlags.RangesFile != "" {
		state.cluster.Table, state.ranges = table, status.NewRanges(o.policyFlags.RangesFile, table)
	} else {
		err = state.readRanges(ctx, client, o.agentNamespace, note)
		state.cluster.Table = awsranges.Merge(state.cluster.Table, table) // adds the --custom-ranges
		if err != nil {
			return nil, describe(err, "ConfigMap "+agent.RangesName)
		}
	}
	if err := state.readPlatform(ctx, client, o.agentNamespace, note); err != nil {
		return nil, describe(err, "ConfigMap "+platform.SnapshotName)
	}
	return state, nil
}

// readPlatform reads the platform documents that the agent saved in a ConfigMap. Without permission, or if the data is
// broken, the documents stay unknown. A tenant usually lacks the permission.
func (s *clusterState) readPlatform(ctx context.Context, client kubernetes.Interface, namespace string, note func(format string, args ...any)) error {
	configMap, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, platform.SnapshotName, metav1.GetOptions{})
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	snapshot, err := platform.DecodeSnapshot(configMap.BinaryData[platform.SnapshotKey])
	if err != nil {
		note("note: the platform documents in ConfigMap %s/%s cannot be read: %v", namespace, platform.SnapshotName, err)
		return nil
	}
	documents, ignored := netpol.SnapshotDocuments(snapshot, netpol.Inputs{Table: s.cluster.Table, Options: s.cluster.Options})
	for _, name := range slices.Sorted(maps.Keys(ignored)) {
		note("note: platform document %s cannot be read: %v", name, ignored[name])
	}
	s.cluster.Governing = func(namespace string) []netpol.PlatformDocument {
		return netpol.GoverningDocuments(snapshot, documents, namespace)
	}
	return nil
}

// listAll reads all objects of a kind, page by page, and counts them for progress. It removes managedFields: status
// does not need them, and they can be larger than the rest of an object.
func listAll[T metav1.Object](ctx context.Context, progress *progress, selector string, listPage pager.ListPageFunc) ([]T, error) {
	var items []T
	err := listEach(ctx, progress, selector, listPage, func(item T) {
		item.SetManagedFields(nil)
		items = append(items, item)
	})
	return items, err
}

// listEach calls each for all objects of a kind, page by page.
func listEach[T metav1.Object](ctx context.Context, progress *progress, selector string, listPage pager.ListPageFunc, each func(T)) error {
	return pager.New(listPage).EachListItem(ctx, metav1.ListOptions{LabelSelector: selector}, func(object runtime.Object) error {
		item, ok := object.(T)
		if !ok {
			return fmt.Errorf("the API server lists a %T", object)
		}
		each(item)
		progress.count.Add(1)
		return nil
	})
}

// readRanges reads the AWS ranges that the agent saved in a ConfigMap. Without permission, or if the data is broken, it
// prints a note, sets RangesIncomplete and returns nil. A tenant usually lacks the permission, and status must still
// show the states of policies.
func (s *clusterState) readRanges(ctx context.Context, client kubernetes.Interface, namespace string, note func(format string, args ...any)) error {
	name := namespace + "/" + agent.RangesName
	configMap, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, agent.RangesName, metav1.GetOptions{})
	switch {
	case apierrors.IsForbidden(err):
		note("note: no permission to read ConfigMap %s: the age of the AWS ranges is unknown", name)
		s.cluster.RangesIncomplete = true
		return nil
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	}
	s.readOptions(configMap.Annotations[agent.OptionsAnnotation])
	custom, err := readCustom(configMap)
	if err != nil {
		note("note: the custom ranges in ConfigMap %s cannot be read: %v", name, err)
		s.cluster.RangesIncomplete = true
	}
	s.cluster.Table = custom
	data, ok := configMap.BinaryData[agent.RangesKey]
	if !ok {
		return nil // the agent has saved only custom ranges
	}
	table, err := awsranges.Read(bytes.NewReader(data))
	if err != nil {
		note("note: the AWS ranges in ConfigMap %s cannot be read: %v", name, err)
		s.cluster.RangesIncomplete = true
		return nil
	}
	s.cluster.Table = awsranges.Merge(table, custom)
	s.ranges = status.NewRanges("ConfigMap "+name, table)
	s.ranges.Refused = oneLine(configMap.Annotations[agent.RefusedAnnotation])
	if confirmed, err := time.Parse(time.RFC3339, configMap.Annotations[agent.ConfirmedAnnotation]); err == nil {
		s.ranges.Confirmed = &confirmed
	}
	return nil
}

// readOptions replaces the options by the options in annotation, which the agent saved. If annotation is not valid, it
// sets RangesIncomplete: the agent is older than this program, or has ranges that it could not save.
func (s *clusterState) readOptions(annotation string) {
	options, err := netpol.ParseOptions(annotation)
	if err != nil {
		s.cluster.RangesIncomplete = true
		return
	}
	s.cluster.Options = options
}

// readCustom returns the custom ranges that the agent saved, or nil if the agent saved no custom ranges.
func readCustom(configMap *corev1.ConfigMap) (*awsranges.Table, error) {
	data, ok := configMap.BinaryData[agent.CustomKey]
	if !ok {
		return nil, nil
	}
	return awsranges.DecodeCustom(data)
}

// describeError returns an error that explains err and says what to do. err is an error from the API server. object is
// the kind of object that status could not read. source is the name of the kubeconfig.
func (o *statusOptions) describeError(err error, object, server, source string) error {
	var requestError *url.Error
	switch {
	case apierrors.IsForbidden(err) && o.tenantNamespace == "":
		return fmt.Errorf("no permission to list %s in all namespaces with %s: give -n NAMESPACE", object, source)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("no permission to list %s in namespace %s with %s: ask for the right to list configmaps and networkpolicies there", object, o.tenantNamespace, source)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s does not accept the credentials of %s: log in again or give another kubeconfig with --kubeconfig FILE", server, source)
	case errors.As(err, &requestError):
		return fmt.Errorf("no answer from %s, the server in %s: %w; check that the cluster runs and that the server is right", server, source, requestError.Err)
	}
	return fmt.Errorf("read %s from %s: %w", object, server, err)
}

// oneLine replaces line breaks and unprintable characters by spaces, so that a text from elsewhere fits on one line of
// a terminal.
func oneLine(message string) string {
	return strings.Join(strings.FieldsFunc(message, func(r rune) bool { return r == '\n' || !strconv.IsPrint(r) }), " ")
}
