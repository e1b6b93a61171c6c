package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const s3Only = `{"allowedDestinations": [{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]}]}`

// keptRanges waits until egress-ranges is as it should be.
func keptRanges(t *testing.T, what string, ok func(*corev1.ConfigMap) bool) *corev1.ConfigMap {
	t.Helper()
	var found *corev1.ConfigMap
	require.Eventually(t, func() bool {
		configMap, err := control.Admin.CoreV1().ConfigMaps("egress-system").Get(context.Background(), "egress-ranges", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false
		}
		require.NoError(t, err)
		found = configMap
		return ok(configMap)
	}, soon, 10*time.Millisecond, "egress-ranges is not %s", what)
	return found
}

func sampleDocument(t *testing.T, name string) string {
	data, err := os.ReadFile(root + "/testdata/ranges/" + name)
	require.NoError(t, err)
	return string(data)
}

// TestFeedFaults breaks the source in every way, each by itself: no NetworkPolicy changes, the agent stays
// ready, and goes on when the source is itself again.
func TestFeedFaults(t *testing.T) {
	long(t)
	good := sampleDocument(t, "ip-ranges.json")
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
		begin                func(t *testing.T, s *source)
	}{
		{"connection refused", "failed", "connection refused", func(_ *testing.T, s *source) { s.down() }},
		{"TLS not trusted", "failed", "certificate signed by unknown authority", func(t *testing.T, s *source) { s.presents(newCertificate(t)) }},
		{"404", "failed", "404 Not Found", func(_ *testing.T, s *source) { s.answers(status(404)) }},
		{"500", "failed", "500 Internal Server Error", func(_ *testing.T, s *source) { s.answers(status(500)) }},
		{"304 for ever", "unchanged", "", func(_ *testing.T, s *source) { s.answers(status(304)) }},
		{"a body cut in the middle", "failed", "unexpected EOF", func(_ *testing.T, s *source) {
			s.answers(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", fmt.Sprint(len(good)))
				w.Write([]byte(good[:len(good)/2]))
			})
		}},
		{"gzip bomb", "refused", "more than 16 MiB", func(t *testing.T, s *source) {
			var bomb bytes.Buffer
			zipped := gzip.NewWriter(&bomb)
			for range 1000 {
				_, err := zipped.Write(bytes.Repeat([]byte{' '}, 1<<20))
				require.NoError(t, err)
			}
			require.NoError(t, zipped.Close())
			s.answers(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				w.Write(bomb.Bytes())
			})
		}},
		{"200 MB body", "refused", "more than 16 MiB", func(_ *testing.T, s *source) {
			s.answers(func(w http.ResponseWriter, _ *http.Request) {
				for range 200 {
					if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<20)); err != nil {
						return
					}
				}
			})
		}},
		{"HTML", "refused", "not an ip-ranges document", func(_ *testing.T, s *source) { s.answers(body("<html><body>Sign in</body></html>")) }},
		{"an empty object", "refused", "it has no rows", func(_ *testing.T, s *source) { s.answers(body("{}")) }},
		{"half the rows missing", "refused", "the document has only 6 of the accepted 13 IPv4 rows; the minimum is 85 %; to accept the document anyway, start with --accept-ranges 1700000001", func(_ *testing.T, s *source) {
			s.answers(body(without(`(?m)^.*"ip_prefix".*"(S3|DYNAMODB|EC2)".*\n`)))
		}},
		{"an older syncToken", "refused", "syncToken 1699999999 is older than the accepted 1700000000", func(_ *testing.T, s *source) {
			s.answers(body(strings.ReplaceAll(good, "1700000000", "1699999999")))
		}},
		{"0.0.0.0/0 among the rows", "refused", "0.0.0.0/0 (S3, us-east-1) is wider than /10", func(_ *testing.T, s *source) { s.answers(body(another("0.0.0.0/0"))) }},
		{"10.0.0.0/16 among the rows", "refused", "10.0.0.0/16 (S3, us-east-1) is in reserved space, 10.0.0.0/8", func(_ *testing.T, s *source) { s.answers(body(another("10.0.0.0/16"))) }},
		{"1,024 more addresses", "refused", "the document opens 16.00 % more IPv4 addresses; the maximum is 15.00 %; to accept the document anyway, start with --accept-ranges 1700000001", func(_ *testing.T, s *source) {
			s.answers(body(another("198.19.0.0/22")))
		}},
		{"a removed row", "refused", "prefixes[11]: unknown field ", func(_ *testing.T, s *source) {
			s.answers(body(later(strings.Replace(good, `"service": "EC2"`, `"service": "EC2", "removed": 1`, 1))))
		}},
		{"next year", "refused", "is more than a day ahead of the clock", func(_ *testing.T, s *source) {
			s.answers(body(strings.ReplaceAll(good, "1700000000", strconv.FormatInt(time.Now().AddDate(1, 0, 0).Unix(), 10))))
		}},
		{"a slow server", "failed", "Client.Timeout", func(_ *testing.T, s *source) {
			s.answers(func(w http.ResponseWriter, r *http.Request) {
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
		{"the ConfigMap deleted", "unchanged", "", func(t *testing.T, _ *source) {
			before := keptRanges(t, "there", func(*corev1.ConfigMap) bool { return true })
			kubectl(t, "", "delete", "configmap", "-n", "egress-system", "egress-ranges")
			after := keptRanges(t, "made again", func(c *corev1.ConfigMap) bool { return c.UID != before.UID })
			require.Equal(t, before.BinaryData, after.BinaryData)
		}},
		{"the ConfigMap corrupted", "unchanged", "", func(t *testing.T, _ *source) {
			before := keptRanges(t, "there", func(*corev1.ConfigMap) bool { return true })
			kubectl(t, "", "patch", "configmap", "-n", "egress-system", "egress-ranges", "--type", "merge", "-p", `{"binaryData": {"ip-ranges.json.gz": "AAAA"}, "data": {"x": "y"}}`)
			after := keptRanges(t, "repaired", func(c *corev1.ConfigMap) bool {
				return bytes.Equal(c.BinaryData["ip-ranges.json.gz"], before.BinaryData["ip-ranges.json.gz"])
			})
			require.Empty(t, after.Data)
		}},
		{"the ConfigMap edited", "unchanged", "", func(t *testing.T, _ *source) {
			keptRanges(t, "there", func(*corev1.ConfigMap) bool { return true })
			kubectl(t, "", "annotate", "configmap", "-n", "egress-system", "egress-ranges", "--overwrite", "egress-controller/sync-token=1", "example.com/note=kept")
			after := keptRanges(t, "repaired", func(c *corev1.ConfigMap) bool { return c.Annotations["egress-controller/sync-token"] == "1700000000" })
			require.Equal(t, "kept", after.Annotations["example.com/note"])
		}},
	} {
		t.Run(fault.name, func(t *testing.T) {
			s := newSource(t)
			s.answers(document([]byte(good), published))
			trusted := s.certificate
			name := "tenant-" + strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(fault.name), "-"), "-")
			namespace(t, name)
			kubectl(t, manifest(name, "egress", s3Only), "apply", "-f", "-")
			e := embed(t, s)
			before := eventuallyPolicy(t, name, "egress", "there", exists)
			e.looked(t, "unchanged")

			fault.begin(t, s)
			e.looked(t, fault.result)
			require.Equal(t, before, getPolicy(t, name, "egress"), "not a byte changed")
			require.True(t, e.ready())
			require.Contains(t, e.log.String(), fault.reason)
			if fault.result == "refused" {
				event := eventuallyEventOn(t, "egress-system", "Lease", "egress-agent", "RangesRefused", func(e corev1.Event) bool { return strings.Contains(e.Message, fault.reason) })
				require.Equal(t, corev1.EventTypeWarning, event.Type)
				keptRanges(t, "saying why", func(c *corev1.ConfigMap) bool {
					return strings.Contains(c.Annotations["egress-controller/refused"], fault.reason)
				})
			}

			// It has all that is allowed, and what it has besides is what AWS added.
			s.presents(trusted)
			s.answers(document([]byte(sampleDocument(t, "ip-ranges-next.json")), published.Add(time.Hour)))
			if fault.name == "connection refused" {
				s.up(t)
			}
			eventuallyPolicy(t, name, "egress", "changed by the next document", opened("198.18.4.0/23"))
			require.Contains(t, eventuallyEvent(t, name, "egress", "RangesChanged").Message, "The ranges changed, CIDRs added: 1, removed: 1; ")
			kept := keptRanges(t, "the next document", func(c *corev1.ConfigMap) bool { return c.Annotations["egress-controller/sync-token"] == "1700021600" })
			require.NotContains(t, kept.Annotations, "egress-controller/refused")
			require.Equal(t, "1", kept.Annotations["egress-controller/held"])
			require.Equal(t, "18", kept.Annotations["egress-controller/rows"])
			require.EqualValues(t, 1, e.metric(t, "held", ""))
			require.EqualValues(t, 1700021600, e.metric(t, "sync_token", ""))
		})
	}
}

// TestRestartWithoutNetwork: what was accepted before is all that is needed, and without it what is in
// force stays.
func TestRestartWithoutNetwork(t *testing.T) {
	s := newSource(t)
	s.answers(document([]byte(sampleDocument(t, "ip-ranges.json")), time.Unix(1_700_000_000, 0)))
	t.Setenv("SSL_CERT_FILE", s.caFile)
	arguments := []string{"--ranges-url", s.url(), "--refresh-interval", "1s"}
	namespace(t, "tenant-offline")
	p := startAgent(t, arguments...)
	kubectl(t, manifest("tenant-offline", "egress", tenantA), "apply", "-f", "-")
	eventuallyPolicy(t, "tenant-offline", "egress", "there", opened("198.18.0.0/24"))
	s.answers(document([]byte(sampleDocument(t, "ip-ranges-next.json")), time.Unix(1_700_021_600, 0)))
	// What AWS removed is held: 198.18.4.0/24 beside the new 198.18.5.0/24.
	before := eventuallyPolicy(t, "tenant-offline", "egress", "changed", opened("198.18.4.0/23"))
	quiet(t)
	p.stop(t)

	s.down()
	mark, err := control.Mark()
	require.NoError(t, err)
	p = startAgent(t, arguments...)
	eventually(t, "it has looked", func() bool { return strings.Contains(p.logged(t), "AWS ranges not refreshed") })
	quiet(t)
	require.Empty(t, writesSince(t, mark, "tenant-offline", "egress-system"), "with the ConfigMap")
	require.Equal(t, before, getPolicy(t, "tenant-offline", "egress"))

	for what, spoil := range map[string][]string{
		"without the ConfigMap":   {"delete", "configmap", "-n", "egress-system", "egress-ranges"},
		"with a broken ConfigMap": {"create", "configmap", "-n", "egress-system", "egress-ranges", "--from-literal=ip-ranges.json.gz=x"},
	} {
		p.stop(t)
		forgetRanges(t)
		if spoil[0] == "create" {
			kubectl(t, "", spoil...)
		}
		p = startAgent(t, arguments...)
		require.Contains(t, eventuallyEvent(t, "tenant-offline", "egress", "RangesUnavailable").Message, "the NetworkPolicy stays as it is until they are", what)
		require.Equal(t, before, getPolicy(t, "tenant-offline", "egress"), what)
		kubectl(t, "", "delete", "events", "-n", "tenant-offline", "--all")
	}
	kubectl(t, manifest("tenant-offline", "new", tenantA), "apply", "-f", "-")
	partial := eventuallyPolicy(t, "tenant-offline", "new", "there", exists)
	require.True(t, opens(partial, "10.1.0.0/24"))
	require.Len(t, partial.Spec.Egress, 2, "DNS and the CIDR")
	s.up(t)
	eventuallyPolicy(t, "tenant-offline", "new", "complete", opened("198.18.5.0/24"))
}

// TestHoldEnds: a prefix that AWS removed is closed once the hold is over.
func TestHoldEnds(t *testing.T) {
	clock := newClock(time.Unix(1_700_000_000, 0))
	s := newSource(t)
	s.answers(document([]byte(sampleDocument(t, "ip-ranges.json")), clock.now()))
	namespace(t, "tenant-hold")
	kubectl(t, manifest("tenant-hold", "egress", s3Only), "apply", "-f", "-")
	e := embed(t, s, withClock(clock))
	eventuallyPolicy(t, "tenant-hold", "egress", "there", opened("198.18.4.0/24"))
	s.answers(document([]byte(sampleDocument(t, "ip-ranges-next.json")), clock.now().Add(6*time.Hour)))
	held := eventuallyPolicy(t, "tenant-hold", "egress", "changed", opened("198.18.4.0/23"))

	clock.advance(24*time.Hour - time.Second)
	e.looked(t, "unchanged")
	require.Equal(t, held, getPolicy(t, "tenant-hold", "egress"))
	s.down()
	clock.advance(time.Hour)
	e.looked(t, "failed")
	require.Equal(t, held, getPolicy(t, "tenant-hold", "egress"), "nothing is closed on doubt")
	require.InDelta(t, time.Hour.Seconds(), e.metric(t, "age_seconds", ""), 1)
	s.up(t)
	after := eventuallyPolicy(t, "tenant-hold", "egress", "closed", opened("198.18.5.0/24"))
	require.False(t, opens(after, "198.18.4.0/23"))
	kept := keptRanges(t, "without a hold", func(c *corev1.ConfigMap) bool { return c.Annotations["egress-controller/held"] == "0" })
	require.Equal(t, "2023-11-14T22:13:20Z", kept.Annotations["egress-controller/accepted"])
	require.Equal(t, "2023-11-15T23:13:19Z", kept.Annotations["egress-controller/confirmed"])
}

// TestAcceptRanges: an operator accepts the one document that was refused.
func TestAcceptRanges(t *testing.T) {
	s := newSource(t)
	s.answers(document([]byte(sampleDocument(t, "ip-ranges.json")), time.Unix(1_700_000_000, 0)))
	t.Setenv("SSL_CERT_FILE", s.caFile)
	arguments := []string{"--ranges-url", s.url(), "--refresh-interval", "1s", "--removal-hold", "0s"}
	namespace(t, "tenant-accept")
	kubectl(t, manifest("tenant-accept", "egress", s3Only), "apply", "-f", "-")
	p := startAgent(t, arguments...)
	eventuallyPolicy(t, "tenant-accept", "egress", "there", opened("198.18.4.0/24"))
	var d map[string]any
	require.NoError(t, json.Unmarshal([]byte(sampleDocument(t, "ip-ranges-next.json")), &d))
	d["prefixes"] = d["prefixes"].([]any)[:6]
	lossy, err := json.Marshal(d)
	require.NoError(t, err)
	s.answers(document(lossy, time.Unix(1_700_021_600, 0)))
	kept := keptRanges(t, "refusing", func(c *corev1.ConfigMap) bool { return c.Annotations["egress-controller/refused"] != "" })
	require.Equal(t, "the document has only 6 of the accepted 13 IPv4 rows; the minimum is 85 %; to accept the document anyway, start with --accept-ranges 1700021600", kept.Annotations["egress-controller/refused"])
	p.stop(t)
	startAgent(t, append(arguments, "--accept-ranges", "1700021600")...)
	eventuallyPolicy(t, "tenant-accept", "egress", "changed", func(p *networkingv1.NetworkPolicy) bool { return !opens(p, "198.18.4.0/24") })
	keptRanges(t, "accepted", func(c *corev1.ConfigMap) bool {
		return c.Annotations["egress-controller/refused"] == "" && c.Annotations["egress-controller/sync-token"] == "1700021600"
	})
}

// TestRangesFileReread: a file that changes is reread at once, by the agent and by the webhook that mounts
// what the agent keeps.
func TestRangesFileReread(t *testing.T) {
	dir := t.TempDir()
	file, own := dir+"/ip-ranges.json", dir+"/own.json"
	put := func(path, data string) {
		require.NoError(t, os.WriteFile(path+"~", []byte(data), 0o600))
		require.NoError(t, os.Rename(path+"~", path))
	}
	put(file, sampleDocument(t, "ip-ranges.json"))
	put(own, sampleDocument(t, "custom.json"))
	namespace(t, "tenant-file")
	startAgent(t, "--ranges-file", file, "--custom-ranges", own)
	kubectl(t, manifest("tenant-file", "egress", s3Only), "apply", "-f", "-")
	kubectl(t, manifest("tenant-file", "own", `{"allowedDestinations": [{"name": "b", "awsService": "billing", "ports": [443]}]}`), "apply", "-f", "-")
	eventuallyPolicy(t, "tenant-file", "egress", "there", opened("198.18.4.0/24"))
	eventuallyPolicy(t, "tenant-file", "own", "there", opened("10.30.0.0/24"))
	put(file, sampleDocument(t, "ip-ranges-next.json"))
	eventuallyPolicy(t, "tenant-file", "egress", "changed", opened("198.18.4.0/23"))

	// The webhook's mount, by hand: what the agent keeps, and later something broken.
	mounted := dir + "/ip-ranges.json.gz"
	webhook := startWebhook(t, "--ranges-file", mounted)
	kept := keptRanges(t, "the next document", func(c *corev1.ConfigMap) bool { return c.Annotations["egress-controller/sync-token"] == "1700021600" })
	put(mounted, string(kept.BinaryData["ip-ranges.json.gz"]))
	eventually(t, "the webhook has what the agent has", func() bool {
		return strings.Contains(webhook.logged(t), `msg="AWS ranges loaded" syncToken=1700021600 createDate=2023-11-15-04-13-20 rows=19`)
	})
	put(mounted, "broken")
	eventually(t, "it tells what it cannot read", func() bool { return strings.Contains(webhook.logged(t), "ip-ranges.json.gz: not an ip-ranges document") })

	put(own, strings.Replace(sampleDocument(t, "custom.json"), "10.30.0.0/24", "10.40.0.0/24", 1))
	eventuallyPolicy(t, "tenant-file", "own", "changed", opened("10.40.0.0/24"))
}
