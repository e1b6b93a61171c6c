package admission

import (
	"log/slog"
	"sync"
	"time"
)

// quietLog passes on at most linesPerSecond warnings about requests: whoever can reach the port could otherwise fill a
// node's disk with them. Metrics count every one.
type quietLog struct {
	*slog.Logger
	mu      sync.Mutex
	second  time.Time
	lines   int
	dropped int
}

const linesPerSecond = 10

func (q *quietLog) Warn(message string, args ...any) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now := time.Now().Truncate(time.Second); now != q.second {
		if q.dropped > 0 {
			q.Logger.Warn("more warnings in a second than are logged", "dropped", q.dropped)
		}
		q.second, q.lines, q.dropped = now, 0, 0
	}
	if q.lines++; q.lines > linesPerSecond {
		q.dropped++
		return
	}
	q.Logger.Warn(message, args...)
}
