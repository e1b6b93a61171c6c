package hostile

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
)

// stored are what a tenant may try to store: an API server sends each for review, from its own address.
var stored = []struct {
	name    string
	short   bool // also in the short form of the suite
	allowed bool // the verdict
	body    func(i int) string
	times   int // how often, atOnce at a time
	atOnce  int
}{
	{"1,500 entries amazon everywhere", true, false, func(int) string { return Review(Amazon(1500)) }, 8, 4},
	{"8,000 repeated regions", false, false, func(int) string { return Review(RepeatedRegions(8000)) }, 8, 4},
	{"340,000 empty entries", true, false, func(int) string { return Review(Empty(340_000)) }, 8, 4},
	{"100 policies of 5 KB of amazon at once", true, false, func(i int) string { return Review(AmazonPorts(90, 100*i)) }, 100, 100},
	{"43,000 ports", false, false, func(int) string { return Review(Ports(43_000)) }, 16, 4},
	{"lists 100,000 deep", false, false, func(int) string { return Review(Nested(100_000)) }, 16, 4},
	{"lists 9,000 deep in the object", false, true, func(int) string {
		return ReviewOf(Small(0), `"labels":{"egress-controller":"managed"},"managedFields":`+Nested(9000), "")
	}, 16, 4},
	{"1,000 sets of regions of amazon", false, true, func(int) string { return Review(Subsets(1000, 1)) }, 8, 4},
	{"1,000 sets of regions, 20 of ports", false, true, func(int) string { return Review(Subsets(1000, 20)) }, 8, 4},
	{"1 MB of white space", false, true, func(int) string { return Review(Blank(1_000_000)) }, 32, 16},
	{"200,000 labels", false, true, func(int) string {
		return ReviewOf(Small(0), `"labels":{"egress-controller":"managed",`+list(200_000, pair)+`}`, "")
	}, 32, 16},
	{"200,000 annotations", false, true, func(int) string {
		return ReviewOf(Small(0), `"labels":{"egress-controller":"managed"},"annotations":{`+list(200_000, pair)+`}`, "")
	}, 32, 16},
	{"20,000 unknown fields", false, false, func(int) string { return Review(UnknownFields(20_000)) }, 16, 4},
	{"18,000 unknown regions", false, false, func(int) string { return Review(UnknownRegions(18_000)) }, 16, 4},
	{"1,000 unknown services", false, false, func(int) string { return Review(UnknownServices(1000)) }, 16, 4},
	{"1,000 nested CIDRs", false, true, func(int) string { return Review(NestedCIDRs(1000)) }, 16, 4},
	// Two of the five that nobody listed: what is escaped, and what is read before it is judged.
	{"a policy escaped six-fold", false, true, func(int) string {
		return strings.Replace(Review("POLICY"), "POLICY", escaped(Blank(400_000)), 1)
	}, 32, 16},
	{"200,000 groups of the user", false, true, func(int) string {
		return ReviewOf(Small(0), Labelled, `,"userInfo":{"username":"u","groups":[`+list(200_000, func(i int) string { return fmt.Sprintf(`"g%d"`, i) })+`]}`)
	}, 32, 16},
}

func pair(i int) string { return fmt.Sprintf(`"l%d":""`, i) }

// escaped writes each character as JSON's escape of six.
func escaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		fmt.Fprintf(&b, `\u%04x`, r)
	}
	return b.String()
}

// TestHostileWebhookStored has each judged many times over, beside an ordinary tenant's reviews.
func TestHostileWebhookStored(t *testing.T) {
	t.Parallel()
	for _, attack := range stored {
		if !attack.short && !harness.RunsAll() {
			continue
		}
		t.Run(attack.name, func(t *testing.T) {
			w := startWebhook(t)
			var verdicts []string
			w.withstands(t, attack.name, func() { verdicts = w.askAll(t, attack.times, attack.atOnce, attack.body) })
			for _, verdict := range verdicts {
				require.Equal(t, attack.allowed, verdict == "", verdict)
			}
		})
	}
}

// askAll asks so many times, and returns the refusals in the answers that came, "" for each that allows. The requests
// of a caller that gets no answer are lost, and the caller goes on.
func (w *webhook) askAll(t *testing.T, times, atOnce int, body func(i int) string) []string {
	client := w.client(t, apiServer)
	var mu sync.Mutex
	var verdicts []string
	var asking sync.WaitGroup
	for worker := range atOnce {
		asking.Go(func() {
			for i := worker; i < times && w.Ended() == ""; i += atOnce {
				ctx, cancel := context.WithTimeout(context.Background(), reviewTimeout)
				response, err := w.Ask(ctx, client, body(i))
				cancel()
				if err != nil {
					continue
				}
				verdict := ""
				if !response.Allowed {
					verdict = "denied: " + response.Result.Message
				}
				mu.Lock()
				verdicts = append(verdicts, verdict)
				mu.Unlock()
			}
		})
	}
	asking.Wait()
	return verdicts
}

// TestHostileWebhookCallersLeave sends expensive reviews in waves and leaves each before it is answered: what nobody
// waits for is not judged. CPU time counts, not time: a tenth of what the answers would take is more than reading takes.
func TestHostileWebhookCallersLeave(t *testing.T) {
	t.Parallel()
	w := startWebhook(t)
	const waves, callers = 10, 50
	body := Review(Subsets(200, 1))
	client := w.client(t, apiServer)
	cost := w.cost(t, client, body, 20)
	name := fmt.Sprintf("%d callers leave", waves*callers)
	w.withstands(t, name, func() {
		before, err := w.CPU()
		if err != nil { // it has ended
			return
		}
		counted := w.metric(t, "egress_webhook_reviews_total")
		for range waves {
			ctx, cancel := context.WithCancel(t.Context())
			var left sync.WaitGroup
			for range callers {
				left.Go(func() { _, _ = w.Ask(ctx, client, body) })
			}
			time.Sleep(50 * time.Millisecond)
			cancel()
			left.Wait()
		}
		var spent time.Duration
		require.Eventually(t, func() bool { // what is still judged has ended
			after, err := w.CPU()
			idle := after-before == spent
			spent = after - before
			return err != nil || idle
		}, 2*harness.Timeout, time.Second)
		if w.Ended() != "" {
			return
		}
		judged := w.metric(t, "egress_webhook_reviews_total") - counted
		t.Logf("%s of CPU, where %d answers take %s; %.0f judged", spent, waves*callers, waves*callers*cost, judged)
		require.Less(t, spent, waves*callers*cost/2, "CPU for reviews that nobody waits for")
	})
}

// cost returns the CPU time of one review, over n of them.
func (w *webhook) cost(t testing.TB, client *http.Client, body string, n int) time.Duration {
	t.Helper()
	before, err := w.CPU()
	require.NoError(t, err)
	for range n {
		_, err := w.Ask(t.Context(), client, body)
		require.NoError(t, err)
	}
	after, err := w.CPU()
	require.NoError(t, err)
	return (after - before) / time.Duration(n)
}
