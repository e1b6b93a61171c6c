// Package clock gives the time of day by which destinations expire.
package clock

import (
	"sync"
	"time"
)

// Clock gives the time of day. It does not follow a jump ahead until the jump has lasted, because a wrong clock would
// close destinations too early. It follows a jump back immediately. It is safe for concurrent use.
type Clock struct {
	read func() (wall time.Time, uptime time.Duration)

	mu         sync.Mutex
	lastWall   time.Time     // the last wall clock that Now followed
	lastUptime time.Duration // when that was
	isAhead    bool          // whether the wall clock has jumped ahead since
	aheadSince time.Duration
}

const (
	// tolerance is how far the wall clock may be ahead of the time since the last call: clocks drift.
	tolerance = time.Minute
	// believedAfter is how long a jump ahead must last. A machine that slept has such a jump, and its clock is right.
	believedAfter = 10 * time.Minute
)

// New returns the clock of this machine.
func New() *Clock {
	start := time.Now()
	return newClock(func() (time.Time, time.Duration) {
		now := time.Now()
		return now.Round(0), now.Sub(start) // Round removes the monotonic clock, and Sub uses it
	})
}

func newClock(read func() (wall time.Time, uptime time.Duration)) *Clock {
	c := &Clock{read: read}
	c.lastWall, c.lastUptime = read()
	return c
}

// Now returns the current time in UTC.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, uptime := c.read()
	expected := c.lastWall.Add(uptime - c.lastUptime)
	isAhead := wall.Sub(expected) > tolerance
	switch {
	case isAhead && !c.isAhead:
		c.isAhead, c.aheadSince = true, uptime
		return expected.UTC()
	case isAhead && uptime-c.aheadSince < believedAfter:
		return expected.UTC()
	}
	c.lastWall, c.lastUptime, c.isAhead = wall, uptime, false
	return wall.UTC()
}
