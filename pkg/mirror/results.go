package mirror

import (
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"
)

// state is how a policy of the hub stands in this cluster.
type state string

const (
	none        state = ""             // the hub has no such policy, or it is in an exempt namespace
	copied      state = "copied"       // the copy is as the policy
	noNamespace state = "no_namespace" // this cluster has no such namespace
	conflict    state = "conflict"     // another ConfigMap has the name
	refused     state = "refused"      // the API server refuses the copy, for example because admission denies it
	unfit       state = "unfit"        // the policy has no document, or one that is too large
	failed      state = "failed"       // a request failed
)

// results has the state of each policy of the hub. It logs each problem once.
type results struct {
	log      *slog.Logger
	writes   *prometheus.CounterVec
	held     prometheus.Gauge
	listedAt prometheus.Gauge
	policies *prometheus.GaugeVec

	mu       sync.Mutex
	states   map[cache.ObjectName]state
	problems map[cache.ObjectName]string // the last logged one
}

func newResults(registry prometheus.Registerer, log *slog.Logger) *results {
	r := &results{
		log: log, states: make(map[cache.ObjectName]state), problems: make(map[cache.ObjectName]string),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "egress_agent_mirror_writes_total", Help: "Writes of copies.",
		}, []string{"verb"}),
		policies: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "egress_agent_mirror_policies", Help: "Policies of the hub, by their state in this cluster.",
		}, []string{"state"}),
		held: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "egress_agent_mirror_deletions_held", Help: "Copies that the brake keeps although the hub lacks their policies.",
		}),
		listedAt: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "egress_agent_mirror_hub_listed_timestamp_seconds", Help: "When the hub last gave a complete list, in epoch seconds; 0 before the first one.",
		}),
	}
	for _, s := range []state{copied, noNamespace, conflict, refused, unfit, failed} {
		r.policies.WithLabelValues(string(s))
	}
	registry.MustRegister(r.writes, r.policies, r.held, r.listedAt)
	return r
}

func (r *results) hubListed(now time.Time) { r.listedAt.Set(float64(now.Unix())) }

// set records the state of a policy. It logs err, unless it is the last logged error of this policy.
func (r *results) set(key cache.ObjectName, next state, err error) {
	// Another write came first. The next sync, which follows at once, reads its result.
	if apierrors.IsConflict(err) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if previous := r.states[key]; previous != next {
		if previous != none {
			r.policies.WithLabelValues(string(previous)).Dec()
		}
		if next != none {
			r.policies.WithLabelValues(string(next)).Inc()
		}
	}
	r.states[key] = next
	if next == none {
		delete(r.states, key)
	}
	if err == nil {
		delete(r.problems, key)
		return
	}
	if r.problems[key] != err.Error() {
		r.problems[key] = err.Error()
		r.log.Warn("policy not copied", "namespace", key.Namespace, "name", key.Name, "state", string(next), "error", err)
	}
}

// isConflict reports whether the last state of a policy was conflict.
func (r *results) isConflict(key cache.ObjectName) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.states[key] == conflict
}
