package admission

import "sync"

// shares gives out what there is a limited amount of to clients, by their addresses. A client may hold as much as is
// left free: one alone gets half of it, n get 1/(n+1) each, and so the next one still finds some, whatever the others
// hold. An API server thereby keeps its share while strangers misbehave, though nothing tells them apart but where they
// call from.
type shares struct {
	mu   sync.Mutex
	free int64
	held map[string]int64
}

func newShares(size int64) *shares { return &shares{free: size, held: make(map[string]int64)} }

// take reports whether the client got another n.
func (s *shares) take(client string, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[client]+n > s.free-n {
		return false
	}
	s.free -= n
	s.held[client] += n
	return true
}

// give takes back n of what the client holds.
func (s *shares) give(client string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free += n
	if s.held[client] -= n; s.held[client] == 0 {
		delete(s.held, client)
	}
}
