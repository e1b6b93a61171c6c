package admission

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The verdicts.
const (
	verdictAllowed = "allowed"
	verdictDenied  = "denied"
)

// Why a request gets no verdict.
const (
	reasonTLS         = "tls_handshake" // no TLS at all, too old a version, a client that does not trust the certificate
	reasonPath        = "path"
	reasonMethod      = "method"
	reasonContentType = "content_type"
	reasonTooLarge    = "too_large"
	reasonBody        = "body" // it was cut, or too slow
	reasonMalformed   = "malformed"
	reasonBusy        = "busy"
	reasonLeft        = "caller_left"
	reasonConnections = "connections" // one too many of its client
)

var reasons = []string{reasonTLS, reasonPath, reasonMethod, reasonContentType, reasonTooLarge, reasonBody, reasonMalformed, reasonBusy, reasonLeft, reasonConnections}

// Metrics are what the webhook tells of itself. No label's value comes from a request.
type Metrics struct {
	reviews  *prometheus.CounterVec
	refused  *prometheus.CounterVec
	duration prometheus.Histogram
	inFlight prometheus.Gauge
}

// NewMetrics registers the webhook's metrics.
func NewMetrics(registry prometheus.Registerer, certificate *Certificate, ranges *Ranges) *Metrics {
	m := &Metrics{
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "egress_webhook_reviews_total", Help: "Reviews by operation (CREATE or UPDATE) and verdict (allowed or denied).",
		}, []string{"operation", "verdict"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "egress_webhook_requests_refused_total",
			Help: "Requests that got no verdict, by reason: tls_handshake, path, method, content_type, too_large, body (cut, or too slow), malformed, busy, caller_left or connections (closed at once, one too many of its client).",
		}, []string{"reason"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "egress_webhook_review_duration_seconds", Help: "Time from a review's header to its answer, its body included.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 4, 8), // to 4 s
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "egress_webhook_reviews_in_flight", Help: "Reviews that are being answered."}),
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
			Name: "egress_webhook_certificate_expiry_seconds", Help: "Time until the serving certificate expires; negative once it has.",
		}, func() float64 { return time.Until(certificate.NotAfter()).Seconds() }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "egress_webhook_ranges_age_seconds", Help: "Time since AWS published the ranges in use; -1 where there are none.",
		}, func() float64 {
			published := ranges.Published()
			if published.IsZero() {
				return -1
			}
			return time.Since(published).Seconds()
		}))
	return m
}
