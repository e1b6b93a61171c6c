package e2e

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"egress-agent/pkg/agent"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
)

// embedded is the agent within this process, where a test holds its clock, with the rights that deploy/
// gives it.
type embedded struct {
	*agent.Agent
	registry *prometheus.Registry
	log      *lockedBuffer
	stop     func()
}

// embed starts an agent that looks at a source 20 times a second.
func embed(t *testing.T, s *source, change ...func(*agent.Options)) *embedded {
	t.Helper()
	kubeconfig, err := control.ServiceAccountKubeconfig(t.Context(), "egress-system", "egress-agent")
	require.NoError(t, err)
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	require.NoError(t, err)
	config.UserAgent, config.QPS = agent.Name, -1
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)

	fetch := awsranges.NewClient(2 * time.Second)
	fetch.Transport = trusting(s)
	e := &embedded{registry: prometheus.NewRegistry(), log: &lockedBuffer{}}
	options := agent.Options{
		Compile: netpol.Options{Family: netpol.IPv4, AllowDNS: true, MaxPortSlots: netpol.DefaultPortSlots},
		Source: agent.Source{
			Feed:     &awsranges.Feed{URL: s.url(), Client: fetch, RemovalHold: 24 * time.Hour, Now: time.Now},
			Interval: 50 * time.Millisecond,
		},
		Namespace: "egress-system", Workers: 8, ChunkPeers: 1000, Metrics: e.registry,
	}
	for _, f := range change {
		f(&options)
	}
	e.Agent = agent.New(client, client, options, slog.New(slog.NewTextHandler(e.log, nil)))
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
			t.Logf("log of the agent:\n%s", e.log)
		}
		forgetRanges(t)
	})
	require.Eventually(t, e.ready, soon, 10*time.Millisecond)
	return e
}

func (e *embedded) ready() bool {
	_, ready := e.Ready()
	return ready
}

// withClock is an option of embed.
func withClock(c *clock) func(*agent.Options) {
	return func(o *agent.Options) { o.Source.Feed.Now = c.now }
}

// trusting is a transport that trusts the source's own certificate.
func trusting(s *source) *http.Transport {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig.RootCAs = s.trusted
	return transport
}

// metric returns a metric's value by its name and, where it has one, its label's value.
func (e *embedded) metric(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := e.registry.Gather()
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

// looked waits for two more looks with a result.
func (e *embedded) looked(t *testing.T, result string) {
	t.Helper()
	before := e.metric(t, "refresh_total", result)
	require.Eventually(t, func() bool { return e.metric(t, "refresh_total", result) >= before+2 }, soon, 10*time.Millisecond, "no look was %s", result)
}

type clock struct {
	mu   sync.Mutex
	time time.Time
}

func newClock(t time.Time) *clock { return &clock{time: t} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.time
}

func (c *clock) advance(d time.Duration) { c.set(c.now().Add(d)) }

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.time = t
}

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(data)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
