package feed

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"egress-agent/scripts/e2e/harness"
)

// TestFaultClockJumps moves the clock by which the embedded agent dates held rows. The agent reads no other clock.
func TestFaultClockJumps(t *testing.T) {
	w := harness.NewWorld(t, "clock", 5)
	clock, s := harness.NewClock(time.Unix(1_700_000_000, 0)), harness.StartRangesServer(t)
	s.SetAnswer(harness.ServeDocument([]byte(harness.SampleRanges(t, "ip-ranges.json")), clock.Now()))
	e := harness.StartEmbeddedAgent(t, s, harness.WithClock(clock))
	w.Put(0, 50, 0)
	for _, jump := range []time.Duration{time.Hour, -time.Hour, -time.Hour, time.Hour} {
		clock.Advance(jump)
		e.AwaitRefreshes(t, "unchanged")
		w.Put(0, 50, 1)
	}
	w.AwaitRest(time.Minute)
}

// TestFeedFaultsChangeNothing breaks the ranges server in every way, one at a time. No NetworkPolicy changes and the
// agent stays ready. When the server is correct again, the agent applies the next document.
func TestFeedFaultsChangeNothing(t *testing.T) {
	harness.SkipUnlessAll(t)
	good := harness.SampleRanges(t, "ip-ranges.json")
	published := time.Unix(1_700_000_000, 0)
	body := func(data string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(data)) }
	}
	later := func(data string) string { return strings.ReplaceAll(data, "1700000000", "1700000001") }
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	without := func(rows string) string { return later(regexp.MustCompile(rows).ReplaceAllString(good, "")) }
	another := func(prefix string) string {
		return later(strings.Replace(good, `"prefixes": [`, `"prefixes": [{"ip_prefix": "`+prefix+`", "region": "us-east-1", "service": "S3"},`, 1))
	}
	for _, fault := range []struct {
		name, result, reason string
		begin                func(t *testing.T, s *harness.RangesServer)
	}{
		{"connection refused", "failed", "connection refused", func(_ *testing.T, s *harness.RangesServer) { s.Close() }},
		{"TLS not trusted", "failed", "certificate signed by unknown authority", func(t *testing.T, s *harness.RangesServer) { s.SetCertificate(harness.NewCertificate(t)) }},
		{"404", "failed", "404 Not Found", func(_ *testing.T, s *harness.RangesServer) { s.SetAnswer(status(404)) }},
		{"500", "failed", "500 Internal Server Error", func(_ *testing.T, s *harness.RangesServer) { s.SetAnswer(status(500)) }},
		{"304 for ever", "unchanged", "", func(_ *testing.T, s *harness.RangesServer) { s.SetAnswer(status(304)) }},
		{"a body cut in the middle", "failed", "unexpected EOF", func(_ *testing.T, s *harness.RangesServer) {
			s.SetAnswer(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", fmt.Sprint(len(good)))
				w.Write([]byte(good[:len(good)/2]))
			})
		}},
		{"gzip bomb", "refused", "larger than 16 MiB", func(t *testing.T, s *harness.RangesServer) {
			var bomb bytes.Buffer
			zipped := gzip.NewWriter(&bomb)
			for range 1000 {
				_, err := zipped.Write(bytes.Repeat([]byte{' '}, 1<<20))
				require.NoError(t, err)
			}
			require.NoError(t, zipped.Close())
			s.SetAnswer(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				w.Write(bomb.Bytes())
			})
		}},
		{"200 MB body", "refused", "larger than 16 MiB", func(_ *testing.T, s *harness.RangesServer) {
			s.SetAnswer(func(w http.ResponseWriter, _ *http.Request) {
				for range 200 {
					if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<20)); err != nil {
						return
					}
				}
			})
		}},
		{"HTML", "refused", "not an ip-ranges document", func(_ *testing.T, s *harness.RangesServer) { s.SetAnswer(body("<html><body>Sign in</body></html>")) }},
		{"an empty object", "refused", "no rows in", func(_ *testing.T, s *harness.RangesServer) { s.SetAnswer(body("{}")) }},
		{"half the rows missing", "refused", "the document has only 6 of the accepted 13 IPv4 rows; the minimum is 85 %; to accept the document anyway, start with --accept-ranges 1700000001", func(_ *testing.T, s *harness.RangesServer) {
			s.SetAnswer(body(without(`(?m)^.*"ip_prefix".*"(S3|DYNAMODB|EC2)".*\n`)))
		}},
		{"an older syncToken", "refused", "syncToken 1699999999 is older than the accepted 1700000000", func(_ *testing.T, s *harness.RangesServer) {
			s.SetAnswer(body(strings.ReplaceAll(good, "1700000000", "1699999999")))
		}},
		{"0.0.0.0/0 among the rows", "refused", "0.0.0.0/0 (S3, us-east-1) is wider than /10", func(_ *testing.T, s *harness.RangesServer) { s.SetAnswer(body(another("0.0.0.0/0"))) }},
		{"10.0.0.0/16 among the rows", "refused", "10.0.0.0/16 (S3, us-east-1) is in reserved space, 10.0.0.0/8", func(_ *testing.T, s *harness.RangesServer) { s.SetAnswer(body(another("10.0.0.0/16"))) }},
		{"1,024 more addresses", "refused", "the document opens 16.00 % more IPv4 addresses; the maximum is 15.00 %; to accept the document anyway, start with --accept-ranges 1700000001", func(_ *testing.T, s *harness.RangesServer) {
			s.SetAnswer(body(another("198.19.0.0/22")))
		}},
		{"a removed row", "refused", "prefixes[11]: unknown field ", func(_ *testing.T, s *harness.RangesServer) {
			s.SetAnswer(body(later(strings.Replace(good, `"service": "EC2"`, `"service": "EC2", "removed": 1`, 1))))
		}},
		{"next year", "refused", "is more than a day ahead of the clock", func(_ *testing.T, s *harness.RangesServer) {
			s.SetAnswer(body(strings.ReplaceAll(good, "1700000000", strconv.FormatInt(time.Now().AddDate(1, 0, 0).Unix(), 10))))
		}},
		{"a slow server", "failed", "Client.Timeout", func(_ *testing.T, s *harness.RangesServer) {
			s.SetAnswer(func(w http.ResponseWriter, r *http.Request) {
				for {
					if _, err := w.Write([]byte(" ")); err != nil || http.NewResponseController(w).Flush() != nil {
						return
					}
					select {
					case <-r.Context().Done():
						return
					case <-time.After(time.Second):
					}
				}
			})
		}},
		{"the ConfigMap deleted", "unchanged", "", func(t *testing.T, _ *harness.RangesServer) {
			before := harness.AwaitSavedRanges(t, "there", func(*corev1.ConfigMap) bool { return true })
			harness.Kubectl(t, "", "delete", "configmap", "-n", "egress-system", "egress-ranges")
			after := harness.AwaitSavedRanges(t, "made again", func(c *corev1.ConfigMap) bool { return c.UID != before.UID })
			require.Equal(t, before.BinaryData, after.BinaryData)
		}},
		{"the ConfigMap corrupted", "unchanged", "", func(t *testing.T, _ *harness.RangesServer) {
			before := harness.AwaitSavedRanges(t, "there", func(*corev1.ConfigMap) bool { return true })
			harness.Kubectl(t, "", "patch", "configmap", "-n", "egress-system", "egress-ranges", "--type", "merge", "-p", `{"binaryData": {"ip-ranges.json.gz": "AAAA"}, "data": {"x": "y"}}`)
			after := harness.AwaitSavedRanges(t, "repaired", func(c *corev1.ConfigMap) bool {
				return bytes.Equal(c.BinaryData["ip-ranges.json.gz"], before.BinaryData["ip-ranges.json.gz"])
			})
			require.Empty(t, after.Data)
		}},
		{"the ConfigMap edited", "unchanged", "", func(t *testing.T, _ *harness.RangesServer) {
			harness.AwaitSavedRanges(t, "there", func(*corev1.ConfigMap) bool { return true })
			harness.Kubectl(t, "", "annotate", "configmap", "-n", "egress-system", "egress-ranges", "--overwrite", "egress-controller/sync-token=1", "example.com/note=kept")
			after := harness.AwaitSavedRanges(t, "repaired", func(c *corev1.ConfigMap) bool { return c.Annotations["egress-controller/sync-token"] == "1700000000" })
			require.Equal(t, "kept", after.Annotations["example.com/note"])
		}},
	} {
		t.Run(fault.name, func(t *testing.T) {
			s := harness.StartRangesServer(t)
			s.SetAnswer(harness.ServeDocument([]byte(good), published))
			trusted := s.Certificate
			name := "tenant-" + strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(fault.name), "-"), "-")
			harness.CreateNamespace(t, name)
			harness.Kubectl(t, harness.PolicyManifest(name, "egress", harness.S3Policy), "apply", "-f", "-")
			e := harness.StartEmbeddedAgent(t, s)
			before := harness.AwaitNetworkPolicy(t, name, "egress", "there", harness.Exists)
			e.AwaitRefreshes(t, "unchanged")

			fault.begin(t, s)
			e.AwaitRefreshes(t, fault.result)
			require.Equal(t, before, harness.GetNetworkPolicy(t, name, "egress"), "the NetworkPolicy is unchanged")
			require.True(t, e.IsReady())
			require.Contains(t, e.Log.String(), fault.reason)
			if fault.result == "refused" {
				event := harness.AwaitEventOn(t, "egress-system", "Lease", "egress-agent", "RangesRefused", func(e corev1.Event) bool { return strings.Contains(e.Message, fault.reason) })
				require.Equal(t, corev1.EventTypeWarning, event.Type)
				harness.AwaitSavedRanges(t, "saying why", func(c *corev1.ConfigMap) bool {
					return strings.Contains(c.Annotations["egress-controller/refused"], fault.reason)
				})
			}

			// The NetworkPolicy opens the held rows and the rows that AWS added.
			s.SetCertificate(trusted)
			s.SetAnswer(harness.ServeDocument([]byte(harness.SampleRanges(t, "ip-ranges-next.json")), published.Add(time.Hour)))
			if fault.name == "connection refused" {
				s.Listen(t)
			}
			harness.AwaitNetworkPolicy(t, name, "egress", "changed by the next document", harness.HasCIDR("198.18.4.0/23"))
			require.Contains(t, harness.AwaitEvent(t, name, "egress", "RangesChanged").Message, "The ranges changed, CIDRs added: 1, removed: 1; ")
			saved := harness.AwaitSavedRanges(t, "the next document", func(c *corev1.ConfigMap) bool { return c.Annotations["egress-controller/sync-token"] == "1700021600" })
			require.NotContains(t, saved.Annotations, "egress-controller/refused")
			require.Equal(t, "1", saved.Annotations["egress-controller/held"])
			require.Equal(t, "18", saved.Annotations["egress-controller/rows"])
			require.EqualValues(t, 1, e.RangesMetric(t, "held", ""))
			require.EqualValues(t, 1700021600, e.RangesMetric(t, "sync_token", ""))
		})
	}
}
