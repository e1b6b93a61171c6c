package admission

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Values of the label verdict.
const (
	verdictAllowed = "allowed"
	verdictDenied  = "denied"
)

// Values of the label reason: why a request gets no verdict.
const (
	reasonTLS         = "tls_handshake" // no TLS, an old TLS version, or a client that does not trust the certificate
	reasonPath        = "path"
	reasonMethod      = "method"
	reasonContentType = "content_type"
	reasonTooLarge    = "too_large"
	reasonBody        = "body" // truncated or too slow
	reasonMalformed   = "malformed"
	reasonBusy        = "busy"
	reasonCallerLeft  = "caller_left"
	reasonConnections = "connections" // the client exceeded its share
)

var reasons = []string{reasonTLS, reasonPath, reasonMethod, reasonContentType, reasonTooLarge, reasonBody, reasonMalformed, reasonBusy, reasonCallerLeft, reasonConnections}

// Metrics are the metrics of the webhook. No label value comes from a request, so the number of time series is bounded.
type Metrics struct {
	reviews  *prometheus.CounterVec
	refused  *prometheus.CounterVec
	duration prometheus.Histogram
	inFlight prometheus.Gauge
}

// NewMetrics creates the metrics and registers them. platform may be nil.
func NewMetrics(registry prometheus.Registerer, certificate *Certificate, ranges *Ranges, platform *Platform) *Metrics {
	m := &Metrics{
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "egress_webhook_reviews_total", Help: "Reviews by operation (CREATE or UPDATE) and verdict (allowed or denied).",
		}, []string{"operation", "verdict"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "egress_webhook_requests_refused_total",
			Help: "Requests that got no verdict, by reason: tls_handshake, path, method, content_type, too_large, body (truncated or too slow), malformed, busy, caller_left or connections (closed because the client exceeded its share).",
		}, []string{"reason"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "egress_webhook_review_duration_seconds", Help: "Time from a review's header to its response, including the body.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 4, 8), // to 4 s
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "egress_webhook_reviews_in_flight", Help: "Number of reviews in progress."}),
	}
	for _, operation := range []string{create, update} {
		for _, verdict := range []string{verdictAllowed, verdictDenied} {
			m.reviews.WithLabelValues(operation, verdict)
		}
	}
	for _, reason := range reasons {
		m.refused.WithLabelValues(reason)
	}
	registry.MustRegister(m.reviews, m.refused, m.duration, m.inFlight,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "egress_webhook_certificate_expiry_seconds", Help: "Time until the serving certificate expires; negative after that.",
		}, func() float64 { return time.Until(certificate.NotAfter()).Seconds() }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "egress_webhook_ranges_age_seconds", Help: "Time since AWS published the current ranges; -1 without AWS ranges.",
		}, func() float64 {
			publishedAt := ranges.PublishedAt()
			if publishedAt.IsZero() {
				return -1
			}
			return time.Since(publishedAt).Seconds()
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "egress_webhook_platform_changed_timestamp_seconds",
			Help: "When the agent made the platform documents that reviews use, in epoch seconds; 0 without any. The agent has the same metric.",
		}, func() float64 { return float64(platform.ChangedAt()) }))
	return m
}
