package harness

import (
	"sync"
	"time"
)

// Clock is a clock that a test sets. Several goroutines may use it.
type Clock struct {
	mu   sync.Mutex
	time time.Time
}

// NewClock returns a clock that shows start.
func NewClock(start time.Time) *Clock { return &Clock{time: start} }

// Now returns the time that the clock shows.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.time
}

// Advance moves the clock by d, which may be negative.
func (c *Clock) Advance(d time.Duration) { c.Set(c.Now().Add(d)) }

// Set sets the clock to t.
func (c *Clock) Set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.time = t
}
