package liveheap

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPeakIgnoresGarbage(t *testing.T) {
	const piece, pieces = 1 << 20, 64
	live := Peak(func() {
		var all [][]byte
		for range pieces {
			all = append(all, make([]byte, piece))
		}
		runtime.KeepAlive(all)
	})
	require.InDelta(t, pieces*piece, live, pieces*piece/4)
	garbage := Peak(func() {
		for range pieces {
			runtime.KeepAlive(make([]byte, piece))
		}
	})
	require.Less(t, garbage, pieces*piece/4)
}
