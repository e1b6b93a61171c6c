package admission

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// TestTurns: ten reviews of a stranger and ten of a tenant came first, and yet each of the others is next but two.
func TestTurns(t *testing.T) {
	judging := newTurns(1)
	require.NoError(t, judging.take(t.Context(), "x", "x"))
	var mu sync.Mutex
	var order []string
	var running sync.WaitGroup
	wait := func(client, namespace string) {
		judging.mu.Lock()
		before := len(judging.waiting)
		judging.mu.Unlock()
		running.Go(func() {
			if judging.take(t.Context(), client, namespace) != nil {
				return
			}
			mu.Lock()
			order = append(order, client+namespace)
			mu.Unlock()
			judging.end()
		})
		require.Eventually(t, func() bool {
			judging.mu.Lock()
			defer judging.mu.Unlock()
			return len(judging.waiting) == before+1
		}, 10*time.Second, 10*time.Microsecond)
	}
	for range 10 {
		wait("stranger", "1")
		wait("server", "hostile")
	}
	wait("server", "a")
	wait("server", "b")
	judging.end()
	running.Wait()
	require.Len(t, order, 22)
	require.Less(t, slices.Index(order, "servera"), 4, order)
	require.Less(t, slices.Index(order, "serverb"), 6, order)
	require.Empty(t, judging.served)
	require.Equal(t, 1, judging.free)
}

// TestTurnsOfThoseWhoLeave: a turn that begins just as its owner leaves goes to the next.
func TestTurnsOfThoseWhoLeave(t *testing.T) {
	judging := newTurns(2)
	var running sync.WaitGroup
	for range 200 {
		running.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if judging.take(ctx, "a", "b") == nil {
				time.Sleep(100 * time.Microsecond)
				judging.end()
			}
		})
	}
	running.Wait()
	require.Equal(t, 2, judging.free)
	require.Empty(t, judging.waiting)
}

// TestShares: each of n clients gets 1/(n+1), and a further one finds as much.
func TestShares(t *testing.T) {
	s := newShares(120)
	takeAll := func(client string) (taken int) {
		for s.take(client, 1) {
			taken++
		}
		return taken
	}
	require.Equal(t, 60, takeAll("a"))
	require.Equal(t, 30, takeAll("b"))
	require.False(t, s.take("a", 1))
	require.Equal(t, 15, takeAll("c"))
	s.give("a", 60)
	require.Equal(t, 37, takeAll("d"), "of what was given back")
	s.give("b", s.held["b"])
	s.give("c", 15)
	s.give("d", s.held["d"])
	require.Empty(t, s.held)
	require.EqualValues(t, 120, s.free)
}

// TestLimit connects from two addresses of this machine.
func TestLimit(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	metrics := newMetrics()
	listener := Limit(inner, metrics)
	defer listener.Close()
	accepted := make(chan net.Conn, maxConnections)
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			accepted <- connection
		}
	}()
	connect := func(from string) net.Conn {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		connection, err := dialer.Dial("tcp", inner.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { connection.Close() })
		return connection
	}
	refused := func() int { return int(testutil.ToFloat64(metrics.refused.WithLabelValues(reasonConnections))) }
	for range maxConnections {
		connect("127.0.0.2")
	}
	require.Eventually(t, func() bool { return len(accepted)+refused() == maxConnections }, 30*time.Second, time.Millisecond)
	require.Equal(t, maxConnections/2, len(accepted), "half for one client")
	connect("127.0.0.3")
	require.Eventually(t, func() bool { return len(accepted) == maxConnections/2+1 }, 30*time.Second, time.Millisecond)
	for len(accepted) > 0 {
		connection := <-accepted
		require.NoError(t, connection.Close())
		connection.Close() // closed twice, it counts once
	}
	connect("127.0.0.2")
	require.Eventually(t, func() bool { return len(accepted) == 1 }, 30*time.Second, time.Millisecond)
}
