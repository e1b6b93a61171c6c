package admission

import (
	"context"
	"slices"
	"sync"
)

// turns lets few reviews be judged at once. Those that wait get in by turns: one of each client, and of a client's one
// of each namespace. So neither a stranger nor a tenant delays another by more than one review.
type turns struct {
	mu      sync.Mutex
	free    int
	waiting []*turn         // in the order they came
	served  map[turnKey]int // when each had its last turn since some wait; 0 for none
	count   int
}

type turn struct {
	turnKey
	begun chan struct{}
}

// turnKey is a namespace of a client; the client itself if that is empty.
type turnKey struct{ client, namespace string }

func newTurns(n int) *turns { return &turns{free: n, served: make(map[turnKey]int)} }

// take waits for a turn, which end must end. An error means that the context ended first.
func (t *turns) take(ctx context.Context, client, namespace string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	if t.free > 0 { // then nobody waits
		t.free--
		t.mu.Unlock()
		return nil
	}
	own := &turn{turnKey{client, namespace}, make(chan struct{})}
	t.waiting = append(t.waiting, own)
	t.mu.Unlock()
	select {
	case <-own.begun:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.waiting, own); i >= 0 {
		t.waiting = slices.Delete(t.waiting, i, i+1)
		return ctx.Err()
	}
	t.free++ // it began meanwhile
	t.next()
	return ctx.Err()
}

// end ends a turn.
func (t *turns) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free++
	t.next()
}

// next begins the turn of whom has waited for one longest: the client, of its namespaces, and of those that wait there.
func (t *turns) next() {
	if t.free == 0 || len(t.waiting) == 0 {
		return
	}
	first := slices.MinFunc(t.waiting, func(a, b *turn) int {
		if c := t.served[turnKey{client: a.client}] - t.served[turnKey{client: b.client}]; c != 0 {
			return c
		}
		return t.served[a.turnKey] - t.served[b.turnKey] // of equal ones the first to come
	})
	t.waiting = slices.DeleteFunc(t.waiting, func(w *turn) bool { return w == first })
	t.free--
	t.count++
	t.served[first.turnKey], t.served[turnKey{client: first.client}] = t.count, t.count
	if len(t.waiting) == 0 {
		clear(t.served)
		t.count = 0
	}
	close(first.begun)
}
