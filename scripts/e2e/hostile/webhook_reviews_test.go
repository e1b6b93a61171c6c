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

// stored are what a tenant may try to store. An API server sends each for review from its own address.
var stored = []struct {
	name    string
	short   bool // runs also without E2E_ALL
	allowed bool // the expected verdict
	body    func(i int) string
	times   int // number of reviews, atOnce at a time
	atOnce  int
}{
	{"1,500 destinations of amazon everywhere", true, false, func(int) string { return Review(Amazon(1500)) }, 8, 4},
	{"8,000 repeated regions", false, false, func(int) string { return Review(RepeatedRegions(8000)) }, 8, 4},
	{"340,000 empty destinations", true, false, func(int) string { return Review(Empty(340_000)) }, 8, 4},
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
	// These came later than the first list: escaped text, and fields that the webhook reads before its review.
	{"a policy escaped six-fold", false, true, func(int) string {
		return strings.Replace(Review("POLICY"), "POLICY", escaped(Blank(400_000)), 1)
	}, 32, 16},
	{"200,000 groups of the user", false, true, func(int) string {
		return ReviewOf(Small(0), Labelled, `,"userInfo":{"username":"u","groups":[`+list(200_000, func(i int) string { return fmt.Sprintf(`"g%d"`, i) })+`]}`)
	}, 32, 16},
}

func pair(i int) string { return fmt.Sprintf(`"l%d":""`, i) }

// escaped writes each character as a JSON escape of six characters.
func escaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		fmt.Fprintf(&b, `\u%04x`, r)
	}
	return b.String()
}

// TestHostileWebhookStored sends each many times, beside an ordinary tenant's reviews.
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

// askAll sends reviews, some at a time, and returns the verdict of each answer: "" if it allows. If a caller gets no
// answer, it continues with the next review.
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

// TestHostileWebhookCallersLeave sends expensive reviews in waves, and cancels each wave before the answers. The
// webhook must not review what no caller waits for. The test compares CPU time, not time: half the CPU time of all
// answers is more than reading the requests takes.
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
		if err != nil { // the process has ended
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
		require.Eventually(t, func() bool { // the reviews that still run have ended
			after, err := w.CPU()
			idle := after-before == spent
			spent = after - before
			return err != nil || idle
		}, 2*harness.Timeout, time.Second)
		if w.Ended() != "" {
			return
		}
		judged := w.metric(t, "egress_webhook_reviews_total") - counted
		t.Logf("%s of CPU; %d answers would take %s; %.0f reviews", spent, waves*callers, waves*callers*cost, judged)
		require.Less(t, spent, waves*callers*cost/2, "CPU for reviews that no caller waits for")
	})
}

// cost returns the CPU time of one review, as the average of n.
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
