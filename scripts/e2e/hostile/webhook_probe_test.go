package hostile

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	reviewTime    = 2 * time.Second // an ordinary tenant's review must have its answer in this time
	reviewTimeout = 5 * time.Second // timeoutSeconds of deploy/base/webhook-configuration.yaml
	probeEvery    = 200 * time.Millisecond
)

// probes are the reviews of an ordinary tenant, which an API server sends during an attack.
type probes struct {
	asked, late int
	unanswered  int // of those that are late
	slowest     time.Duration
	problem     string // of the first review without an answer
}

func (p *probes) add(took time.Duration, err error) {
	p.asked++
	p.slowest = max(p.slowest, took)
	if err != nil || took > reviewTime {
		p.late++
	}
	if err != nil {
		p.unanswered++
		if p.problem == "" {
			p.problem = err.Error()
		}
	}
}

// require requires an answer in time to each review. One review, or one in ten, may be late, because other processes
// run on this machine.
func (p *probes) require(t *testing.T) {
	t.Helper()
	require.Zero(t, p.unanswered, "reviews of an ordinary tenant without an answer: %s", p.problem)
	require.LessOrEqual(t, p.late, max(1, p.asked/10), "late reviews of an ordinary tenant")
}

func (p *probes) String() string {
	if p.late == 0 {
		return fmt.Sprintf("%d reviews, slowest %s", p.asked, p.slowest.Round(time.Millisecond))
	}
	return fmt.Sprintf("%d of %d reviews not within %s", p.late, p.asked, reviewTime)
}

// probe sends one review from the API server's address, and requires the right answer.
func (w *webhook) probe(client *http.Client, i int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), reviewTimeout)
	defer cancel()
	started := time.Now()
	response, err := w.Ask(ctx, client, Review(Small(i)))
	if err == nil && !response.Allowed {
		err = fmt.Errorf("denied: %s", response.Result.Message)
	}
	return time.Since(started), err
}

// beside sends probes while do runs: in turn over a connection that stays open and over a new one.
func (w *webhook) beside(t testing.TB, do func()) *probes {
	stays, found, done := w.client(t, apiServer), &probes{}, make(chan struct{})
	found.add(w.probe(stays, 0))
	var probing sync.WaitGroup
	probing.Go(func() {
		for i := 1; w.Ended() == ""; i++ {
			client := stays
			if i%2 == 1 {
				client = w.client(t, apiServer)
			}
			found.add(w.probe(client, i))
			if client != stays {
				client.CloseIdleConnections()
			}
			select {
			case <-done:
				return
			case <-time.After(probeEvery):
			}
		}
	})
	defer probing.Wait()
	defer close(done)
	do()
	return found
}

// withstands requires that the webhook survives an attack within its memory limit, and answers an ordinary tenant's
// reviews during and after it.
func (w *webhook) withstands(t *testing.T, name string, do func()) {
	t.Helper()
	pid := w.PID
	found := w.beside(t, do)
	after := &probes{}
	for i := 0; i < 3 && (i == 0 || after.late == i); i++ {
		after.add(w.probe(w.client(t, apiServer), i))
	}
	if after.late == after.asked {
		time.Sleep(time.Second) // the kernel closes a killed process's connections before the process has ended
	}
	result := "alive"
	if ended := w.Ended(); ended != "" {
		result = ended
	}
	ordinary := found.String()
	if after.late == after.asked {
		ordinary += "; none after it"
	}
	table.add("webhook: "+name, result, megabytes(w.Peak()), ordinary)
	t.Logf("%s, peak %s, %s %s", result, megabytes(w.Peak()), ordinary, found.problem)
	require.Equal(t, "alive", result)
	require.Equal(t, pid, w.PID)
	require.Less(t, w.Peak(), webhookPod.Memory, "its memory")
	found.require(t)
	require.Less(t, after.late, after.asked, "a review after the attack: %s", after.problem)
}
