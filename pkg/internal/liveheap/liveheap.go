// Package liveheap measures what a function keeps alive while it runs, for tests of what judging may cost.
package liveheap

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Peak returns by how many bytes f raises the live heap at most. It lets collections follow each other closely, and
// reads what each found alive: garbage does not count. No other goroutine may allocate meanwhile.
func Peak(f func()) int {
	const percent = 5 // a collection for every twentieth that is added
	defer debug.SetGCPercent(debug.SetGCPercent(percent))
	runtime.GC()
	before, peak, done := live(), 0, make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	for {
		select {
		case <-done:
			return max(peak, live()-before)
		case <-time.After(100 * time.Microsecond):
			peak = max(peak, live()-before)
		}
	}
}

// live returns the bytes that the last collection found alive.
func live() int {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}
