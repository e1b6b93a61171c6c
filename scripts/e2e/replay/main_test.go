package replay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/clientcmd"

	"egress-agent/pkg/agent"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/scripts/e2e/harness"
)

// The environment of the process that is the agent. Elsewhere agentKubeconfig is not set.
const (
	agentKubeconfig = "REPLAY_AGENT_KUBECONFIG"
	agentURL        = "REPLAY_AGENT_URL"
	agentCA         = "REPLAY_AGENT_CA"
)

// chunkPeers is the default of egress-agent. settle is shorter, so that a replay is.
const (
	chunkPeers = 200
	settle     = 100 * time.Millisecond
)

// TestMain is the agent in a process that the test has started, so that the agent's memory can be measured.
func TestMain(m *testing.M) {
	if os.Getenv(agentKubeconfig) == "" {
		harness.Main(m)
	}
	if err := runAgent(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runAgent runs an agent until SIGTERM. Its clock shows when the last answer of the ranges server was published.
func runAgent() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv(agentKubeconfig))
	if err != nil {
		return err
	}
	config.UserAgent, config.QPS = agent.Name, -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	metadataClient, err := metadata.NewForConfig(config)
	if err != nil {
		return err
	}
	bundle, err := os.ReadFile(os.Getenv(agentCA))
	if err != nil {
		return err
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(bundle)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: trusted}
	clock := harness.NewClock(time.Time{})
	rangesClient := awsranges.NewClient(10 * time.Second)
	rangesClient.Transport = publishedClock{transport, clock}
	options := agent.Options{
		Compile: netpol.Options{Family: netpol.IPv4, AllowDNS: true, MaxPortSlots: netpol.DefaultPortSlots},
		Source: agent.Source{
			Feed:     &awsranges.Feed{URL: os.Getenv(agentURL), Client: rangesClient, RemovalHold: removalHold, Now: clock.Now},
			Interval: 20 * time.Millisecond,
		},
		Namespace: harness.AgentNamespace, Workers: 8, ChunkPeers: chunkPeers, Settle: settle, Metrics: prometheus.NewRegistry(),
	}
	clients := agent.Clients{API: client, Metadata: metadataClient, Events: client}
	return agent.New(clients, options, slog.New(slog.NewTextHandler(os.Stderr, nil))).Run(ctx)
}

// publishedClock sets a clock to the time of Last-Modified of each answer.
type publishedClock struct {
	http.RoundTripper
	clock *harness.Clock
}

func (p publishedClock) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := p.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	published, err := http.ParseTime(response.Header.Get("Last-Modified"))
	if err != nil {
		return nil, err
	}
	p.clock.Set(published)
	return response, nil
}
