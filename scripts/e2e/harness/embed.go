package harness

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/clientcmd"

	"egress-agent/pkg/agent"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
)

// EmbeddedAgent is an agent in the process of the test, so that the test can set the agent's clock. It has the rights
// that deploy/ grants.
type EmbeddedAgent struct {
	*agent.Agent
	Registry *prometheus.Registry
	Log      *LogBuffer
	stop     func()
}

// StartEmbeddedAgent runs an agent until the test ends. The agent refreshes its ranges from server 20 times a second.
// changes may change its options.
func StartEmbeddedAgent(t *testing.T, server *RangesServer, changes ...func(*agent.Options)) *EmbeddedAgent {
	t.Helper()
	kubeconfig, err := Control(t).ServiceAccountKubeconfig(t.Context(), AgentNamespace, AgentName)
	require.NoError(t, err)
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	require.NoError(t, err)
	config.UserAgent, config.QPS = agent.Name, -1
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	metadataClient, err := metadata.NewForConfig(config)
	require.NoError(t, err)

	rangesClient := awsranges.NewClient(2 * time.Second)
	rangesClient.Transport = transportTrusting(server)
	e := &EmbeddedAgent{Registry: prometheus.NewRegistry(), Log: &LogBuffer{}}
	options := agent.Options{
		Compile: netpol.Options{Family: netpol.IPv4, AllowDNS: true, MaxPortSlots: netpol.DefaultPortSlots},
		Source: agent.Source{
			Feed:     &awsranges.Feed{URL: server.URL(), Client: rangesClient, RemovalHold: 24 * time.Hour, Now: time.Now},
			Interval: 50 * time.Millisecond,
		},
		Namespace: "egress-system", Workers: 8, ChunkPeers: 1000, Metrics: e.Registry,
	}
	for _, change := range changes {
		change(&options)
	}
	clients := agent.Clients{API: client, Metadata: metadataClient, Events: client}
	e.Agent = agent.New(clients, options, slog.New(slog.NewTextHandler(e.Log, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	e.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(func() {
		e.stop()
		if t.Failed() {
			t.Logf("log of the agent:\n%s", e.Log)
		}
		DeleteSavedRanges(t)
	})
	require.Eventually(t, e.IsReady, Timeout, 10*time.Millisecond)
	return e
}

// IsReady reports whether the agent is ready.
func (e *EmbeddedAgent) IsReady() bool {
	_, ready := e.Ready()
	return ready
}

// WithClock makes clock the clock of an embedded agent's feed, which decides when a hold ends.
func WithClock(clock *Clock) func(*agent.Options) {
	return func(options *agent.Options) { options.Source.Feed.Now = clock.Now }
}

// transportTrusting returns a transport that trusts the certificate of server.
func transportTrusting(server *RangesServer) *http.Transport {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig.RootCAs = server.Trusted
	return transport
}

// RangesMetric returns the value of the metric egress_agent_ranges_NAME. label is the value of its first label, or ""
// for a metric without labels.
func (e *EmbeddedAgent) RangesMetric(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := e.Registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "egress_agent_ranges_"+name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	require.FailNow(t, "no metric "+name)
	return 0
}

// AwaitRefreshes waits for two more refreshes with this result. The first of the two may have begun before the call,
// but not the second.
func (e *EmbeddedAgent) AwaitRefreshes(t *testing.T, result string) {
	t.Helper()
	start := e.RangesMetric(t, "refresh_total", result)
	isDone := func() bool { return e.RangesMetric(t, "refresh_total", result) >= start+2 }
	require.Eventually(t, isDone, Timeout, 10*time.Millisecond, "no refresh was %s", result)
}
