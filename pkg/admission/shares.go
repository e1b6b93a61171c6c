package admission

import "sync"

// clientShares divides a limited amount among clients, by address. A client may hold at most as much as remains free. A
// single client gets half of the amount, and each of n clients gets 1/(n+1). So a further client always gets a share.
// This protects an API server from other clients, although only the address distinguishes them.
type clientShares struct {
	mu   sync.Mutex
	free int64
	held map[string]int64 // by client
}

func newClientShares(size int64) *clientShares {
	return &clientShares{free: size, held: make(map[string]int64)}
}

// acquire adds n to the amount that the client holds. If this exceeds the client's share, acquire changes nothing and
// returns false.
func (s *clientShares) acquire(client string, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[client]+n > s.free-n {
		return false
	}
	s.free -= n
	s.held[client] += n
	return true
}

// release subtracts n from the amount that the client holds.
func (s *clientShares) release(client string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free += n
	if s.held[client] -= n; s.held[client] == 0 {
		delete(s.held, client)
	}
}
