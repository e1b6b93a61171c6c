package hostile

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	reviewTime    = 2 * time.Second // an ordinary tenant's review must have its answer in this time
	reviewTimeout = 5 * time.Second // timeoutSeconds of deploy/base/webhook-configuration.yaml
	floorTime     = reviewTime / 4  // if the floor is slower, the machine is too busy to tell anything
	probeEvery    = 200 * time.Millisecond
)

// probes are the reviews of an ordinary tenant, which an API server sends during an attack.
type probes struct {
	asked, late int // without those that the machine was too busy for
	busy        int // late, but so was the floor
	unanswered  int // of those that are late
	slowest     time.Duration
	problem     string // of the first review without an answer
}

// add sends one review to the webhook and the same one to the floor, at the same time, and counts it.
func (p *probes) add(review, floor func() error) {
	var asking sync.WaitGroup
	var floorTook time.Duration
	var floorErr error
	asking.Go(func() { floorTook, floorErr = timed(floor) })
	took, err := timed(review)
	asking.Wait()
	late := err != nil || took > reviewTime
	if late && (floorErr != nil || floorTook > floorTime) {
		p.busy++
		return
	}
	p.asked++
	p.slowest = max(p.slowest, took)
	if late {
		p.late++
	}
	if err != nil {
		p.unanswered++
		if p.problem == "" {
			p.problem = err.Error()
		}
	}
}

func timed(do func() error) (time.Duration, error) {
	started := time.Now()
	err := do()
	return time.Since(started), err
}

// require requires an answer in time to each review. One review, or one in ten, may be late, because other processes
// run on this machine.
func (p *probes) require(t *testing.T) {
	t.Helper()
	require.Zero(t, p.unanswered, "reviews of an ordinary tenant without an answer: %s", p.problem)
	require.LessOrEqual(t, p.late, max(1, p.asked/10), "late reviews of an ordinary tenant")
}

func (p *probes) String() string {
	text := fmt.Sprintf("%d reviews, slowest %s", p.asked, p.slowest.Round(time.Millisecond))
	if p.late > 0 {
		text = fmt.Sprintf("%d of %d reviews not within %s", p.late, p.asked, reviewTime)
	}
	if p.busy > 0 {
		text += fmt.Sprintf("; %d more on a busy machine", p.busy)
	}
	return text
}

// probe counts one review over a new connection or over one that stays open.
func (w *webhook) probe(t testing.TB, found *probes, i int, reconnect bool) {
	found.add(func() error { return w.ask(t, i, reconnect) }, func() error { return w.floor.ask(t, i, reconnect) })
}

// ask sends one review from the API server's address, and requires the right answer.
func (w *webhook) ask(t testing.TB, i int, reconnect bool) error {
	client := w.stays
	if reconnect {
		client = w.client(t, apiServer)
		defer client.CloseIdleConnections()
	}
	ctx, cancel := context.WithTimeout(context.Background(), reviewTimeout)
	defer cancel()
	response, err := w.Ask(ctx, client, Review(Small(i)))
	if err == nil && !response.Allowed {
		err = fmt.Errorf("denied: %s", response.Result.Message)
	}
	return err
}

// beside sends probes while do runs: in turn over a connection that stays open and over a new one.
func (w *webhook) beside(t testing.TB, do func()) *probes {
	found, done := &probes{}, make(chan struct{})
	w.probe(t, found, 0, false)
	var probing sync.WaitGroup
	probing.Go(func() {
		for i := 1; w.Ended() == ""; i++ {
			w.probe(t, found, i, i%2 == 1)
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
	for i := 0; i < 10 && after.late == after.asked; i++ {
		w.probe(t, after, i, true)
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
