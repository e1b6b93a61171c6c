package admission

import (
	"context"
	"slices"
	"sync"
)

// fairSemaphore limits the number of concurrent evaluations. Clients take turns, and the namespaces of a client take
// turns. So another client or another tenant delays a review by at most one evaluation.
type fairSemaphore struct {
	mu            sync.Mutex
	free          int
	waiters       []*waiter    // in order of arrival
	lastAdmitted  map[flow]int // the value of admittedCount at the flow's last admission; empty if there are no waiters
	admittedCount int          // number of admissions since there were no waiters
}

type waiter struct {
	flow
	admitted chan struct{}
}

// flow is a namespace of a client. An empty namespace means the client itself.
type flow struct{ client, namespace string }

// newFairSemaphore returns a semaphore that admits n evaluations at a time.
func newFairSemaphore(n int) *fairSemaphore {
	return &fairSemaphore{free: n, lastAdmitted: make(map[flow]int)}
}

// acquire waits until the semaphore admits the caller, who must call release later. It returns an error if ctx
// ends first.
func (s *fairSemaphore) acquire(ctx context.Context, client, namespace string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.free > 0 { // there are no waiters while an evaluation is free
		s.free--
		s.mu.Unlock()
		return nil
	}
	caller := &waiter{flow{client, namespace}, make(chan struct{})}
	s.waiters = append(s.waiters, caller)
	s.mu.Unlock()
	select {
	case <-caller.admitted:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiters, caller); i >= 0 {
		s.waiters = slices.Delete(s.waiters, i, i+1)
		return ctx.Err()
	}
	s.free++ // the caller was admitted at the same moment, so admit the next waiter instead
	s.admitNext()
	return ctx.Err()
}

// release ends an evaluation and admits the next waiter.
func (s *fairSemaphore) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free++
	s.admitNext()
}

// admitNext admits one waiter. It chooses the client whose last admission is the oldest, then the client's namespace
// whose last admission is the oldest, then the first waiter of this namespace.
func (s *fairSemaphore) admitNext() {
	if s.free == 0 || len(s.waiters) == 0 {
		return
	}
	first := slices.MinFunc(s.waiters, func(a, b *waiter) int {
		if c := s.lastAdmitted[flow{client: a.client}] - s.lastAdmitted[flow{client: b.client}]; c != 0 {
			return c
		}
		return s.lastAdmitted[a.flow] - s.lastAdmitted[b.flow] // MinFunc returns the first of equal waiters
	})
	s.waiters = slices.DeleteFunc(s.waiters, func(w *waiter) bool { return w == first })
	s.free--
	s.admittedCount++
	s.lastAdmitted[first.flow], s.lastAdmitted[flow{client: first.client}] = s.admittedCount, s.admittedCount
	if len(s.waiters) == 0 {
		clear(s.lastAdmitted)
		s.admittedCount = 0
	}
	close(first.admitted)
}
