package admission

import (
	"context"
	"slices"
	"sync"
)

// fairSemaphore limits the number of concurrent evaluations. It admits waiters in turn: one for each client,
// and within a client one for each namespace. So neither another client nor another tenant delays a review by
// more than one evaluation.
type fairSemaphore struct {
	mu            sync.Mutex
	free          int
	waiters       []*waiter    // in order of arrival
	lastAdmitted  map[flow]int // the admittedCount at the last admission; cleared when nobody waits
	admittedCount int          // admissions since the last time that nobody waited
}

type waiter struct {
	flow
	admitted chan struct{}
}

// flow is a namespace of a client. An empty namespace means the client itself.
type flow struct{ client, namespace string }

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
	if s.free > 0 { // nobody waits while some are free
		s.free--
		s.mu.Unlock()
		return nil
	}
	own := &waiter{flow{client, namespace}, make(chan struct{})}
	s.waiters = append(s.waiters, own)
	s.mu.Unlock()
	select {
	case <-own.admitted:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiters, own); i >= 0 {
		s.waiters = slices.Delete(s.waiters, i, i+1)
		return ctx.Err()
	}
	s.free++ // admitted at the same moment: pass the admission on
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

// admitNext admits one waiter. It chooses the client with the oldest admission, then the namespace of that
// client with the oldest admission, then the first waiter.
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
