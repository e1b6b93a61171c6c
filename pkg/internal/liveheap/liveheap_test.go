package liveheap

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPeak(t *testing.T) {
	const piece, pieces = 1 << 20, 64
	kept := Peak(func() {
		var all [][]byte
		for range pieces {
			all = append(all, make([]byte, piece))
		}
		runtime.KeepAlive(all)
	})
	require.InDelta(t, pieces*piece, kept, pieces*piece/4)
	dropped := Peak(func() {
		for range pieces {
			runtime.KeepAlive(make([]byte, piece))
		}
	})
	require.Less(t, dropped, pieces*piece/4)
}
