package admission

import (
	"log/slog"
	"sync"
	"time"
)

// rateLimitedLog logs at most maxWarningsPerSecond warnings about requests. Otherwise anyone who reaches the
// port could fill a node's disk. Metrics count every refused request.
type rateLimitedLog struct {
	*slog.Logger
	mu       sync.Mutex
	second   time.Time
	warnings int
	dropped  int
}

const maxWarningsPerSecond = 10

// Warn logs a warning. After maxWarningsPerSecond warnings in the same second, it drops and counts further warnings.
func (l *rateLimitedLog) Warn(message string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now().Truncate(time.Second); now != l.second {
		if l.dropped > 0 {
			l.Logger.Warn("warnings dropped", "count", l.dropped)
		}
		l.second, l.warnings, l.dropped = now, 0, 0
	}
	if l.warnings++; l.warnings > maxWarningsPerSecond {
		l.dropped++
		return
	}
	l.Logger.Warn(message, args...)
}
