package clock

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestClockFollowsAJumpOnlyIfItLasts(t *testing.T) {
	start := time.Date(2027, 3, 31, 12, 0, 0, 0, time.UTC)
	var uptime, offset time.Duration
	c := newClock(func() (time.Time, time.Duration) { return start.Add(uptime + offset), uptime })
	pass := func(d time.Duration) time.Duration {
		uptime += d
		return c.Now().Sub(start)
	}
	require.Equal(t, time.Hour, pass(time.Hour))

	offset = 30 * time.Second
	require.Equal(t, 2*time.Hour+30*time.Second, pass(time.Hour), "drift")
	offset = 0
	require.Equal(t, 2*time.Hour+time.Second, pass(time.Second), "it goes back at once")

	offset = 24 * time.Hour
	require.Equal(t, 2*time.Hour+2*time.Second, pass(time.Second), "a jump ahead")
	require.Equal(t, 2*time.Hour+9*time.Minute, pass(9*time.Minute-2*time.Second))
	offset = 0
	require.Equal(t, 2*time.Hour+10*time.Minute, pass(time.Minute), "the clock is right again")

	offset = 24 * time.Hour
	require.Equal(t, 2*time.Hour+11*time.Minute, pass(time.Minute), "another jump")
	require.Equal(t, 26*time.Hour+21*time.Minute, pass(10*time.Minute), "it has lasted for ten minutes")
	require.Equal(t, 27*time.Hour+21*time.Minute, pass(time.Hour))

	offset = -24 * time.Hour
	back := pass(time.Second)
	require.Equal(t, uptime-24*time.Hour, back, "a jump back")
}

func TestClockOfThisMachine(t *testing.T) {
	require.WithinDuration(t, time.Now(), New().Now(), time.Minute)
	require.Equal(t, time.UTC, New().Now().Location())
}
