package deploy

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"egress-agent/scripts/e2e/harness"
)

var monitoring = harness.Root + "/deploy/components/prometheus"

// alertRules returns the alert rules, parsed by Prometheus' own code.
func alertRules(t *testing.T) []rulefmt.Rule {
	text, err := os.ReadFile(monitoring + "/alerts.yaml")
	require.NoError(t, err)
	var object struct{ Spec json.RawMessage }
	require.NoError(t, yaml.Unmarshal(text, &object))
	groups, errs := rulefmt.Parse(object.Spec, false, model.UTF8Validation, parser.NewParser(parser.Options{}))
	require.Empty(t, errs)
	require.Len(t, groups.Groups, 1)
	return groups.Groups[0].Rules
}

// TestEachAlertHasRunbook checks the labels and annotations of each alert, and that WEBHOOK.md has a section for it.
func TestEachAlertHasRunbook(t *testing.T) {
	runbook, err := os.ReadFile(harness.Root + "/WEBHOOK.md")
	require.NoError(t, err)
	for _, rule := range alertRules(t) {
		require.NotZero(t, rule.For, rule.Alert)
		require.Contains(t, []string{"critical", "warning"}, rule.Labels["severity"], rule.Alert)
		require.NotEmpty(t, rule.Annotations["summary"], rule.Alert)
		require.Equal(t, `WEBHOOK.md, "`+rule.Alert+`"`, rule.Annotations["runbook"])
		require.Contains(t, string(runbook), "\n### "+rule.Alert+"\n")
	}
	for _, line := range strings.Split(string(runbook), "\n") {
		if name, ok := strings.CutPrefix(line, "### Egress"); ok {
			require.Contains(t, alertNames(t), "Egress"+name, "the runbook has a section only for existing alerts")
		}
	}
}

func alertNames(t *testing.T) (names []string) {
	for _, rule := range alertRules(t) {
		names = append(names, rule.Alert)
	}
	return names
}

// dashboardQueries returns the queries of the dashboard.
func dashboardQueries(t *testing.T) (queries []string) {
	text, err := os.ReadFile(monitoring + "/dashboard.json")
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	require.NoError(t, json.Unmarshal(text, &dashboard))
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			queries = append(queries, target.Expr)
		}
	}
	require.Greater(t, len(queries), 10)
	return queries
}

// scrapeInterval is the scrape interval of a Prometheus that watches the programs. The test only simulates it.
const scrapeInterval = 2 * time.Minute

// history stores real scrapes of the programs, with simulated times one scrape interval apart.
type history struct {
	*teststorage.TestStorage
	engine *promql.Engine
	now    time.Time
	names  map[string]bool // of all scraped metrics
}

func newHistory(t *testing.T) *history {
	return &history{
		TestStorage: teststorage.New(t),
		engine:      promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, Parser: parser.NewParser(parser.Options{})}),
		now:         time.Now(),
		names:       make(map[string]bool),
	}
}

// scrape stores the metrics of some processes, and advances the time by a scrape interval.
func (h *history) scrape(t *testing.T, processes ...*harness.Process) {
	appender := h.Appender(context.Background())
	for _, p := range processes {
		response, err := http.Get("http://" + p.HealthAddress + "/metrics")
		require.NoError(t, err)
		textParser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := textParser.TextToMetricFamilies(response.Body)
		response.Body.Close()
		require.NoError(t, err)
		for name, family := range families {
			h.names[name] = true
			for _, metric := range family.Metric {
				value, simple := simpleValue(metric)
				if !simple {
					for _, suffix := range []string{"_bucket", "_sum", "_count"} {
						h.names[name+suffix] = true
					}
					continue
				}
				builder := labels.NewScratchBuilder(4)
				builder.Add("__name__", name)
				builder.Add("instance", p.HealthAddress)
				for _, pair := range metric.Label {
					builder.Add(pair.GetName(), pair.GetValue())
				}
				builder.Sort()
				_, err := appender.Append(0, builder.Labels(), h.now.UnixMilli(), value)
				require.NoError(t, err)
			}
		}
	}
	require.NoError(t, appender.Commit())
	h.now = h.now.Add(scrapeInterval)
}

// simpleValue returns the value of a counter, a gauge or an untyped metric. simple is false for others.
func simpleValue(metric *dto.Metric) (value float64, simple bool) {
	switch {
	case metric.Counter != nil:
		return metric.Counter.GetValue(), true
	case metric.Gauge != nil:
		return metric.Gauge.GetValue(), true
	case metric.Untyped != nil:
		return metric.Untyped.GetValue(), true
	}
	return 0, false
}

// firing returns the alerts whose expression was true for the duration of "for" until the last scrape.
func (h *history) firing(t *testing.T, rules []rulefmt.Rule) []string {
	names := []string{}
	last := h.now.Add(-scrapeInterval)
	for _, rule := range rules {
		fires := true
		for at := last.Add(-time.Duration(rule.For)); fires && !at.After(last); at = at.Add(scrapeInterval) {
			fires = len(h.query(t, rule.Expr, at)) > 0
		}
		if fires {
			names = append(names, rule.Alert)
		}
	}
	return names
}

func (h *history) query(t *testing.T, expression string, at time.Time) promql.Vector {
	query, err := h.engine.NewInstantQuery(context.Background(), h, nil, expression, at)
	require.NoError(t, err)
	defer query.Close()
	vector, err := query.Exec(context.Background()).Vector()
	require.NoError(t, err)
	return append(promql.Vector(nil), vector...)
}
