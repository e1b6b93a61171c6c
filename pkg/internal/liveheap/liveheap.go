// Package liveheap measures the peak of the live heap while a function runs. Tests use it to bound the
// memory of a review.
package liveheap

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Peak runs f and returns the largest growth of the live heap, in bytes. It makes the garbage collector run
// often and reads the live bytes after each collection, so garbage does not count. No other goroutine may
// allocate meanwhile.
func Peak(f func()) int {
	const percent = 5 // collect after the heap grows by a twentieth
	defer debug.SetGCPercent(debug.SetGCPercent(percent))
	runtime.GC()
	initial, peak, done := live(), 0, make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	for {
		select {
		case <-done:
			return max(peak, live()-initial)
		case <-time.After(100 * time.Microsecond):
			peak = max(peak, live()-initial)
		}
	}
}

// live returns the number of live bytes after the last collection.
func live() int {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}
