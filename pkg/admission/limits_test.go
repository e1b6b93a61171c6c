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

// TestSemaphoreIsFair queues ten reviews of another client and ten of one tenant first. Each further namespace
// is admitted within a few turns.
func TestSemaphoreIsFair(t *testing.T) {
	semaphore := newFairSemaphore(1)
	require.NoError(t, semaphore.acquire(t.Context(), "x", "x"))
	var mu sync.Mutex
	var order []string
	var running sync.WaitGroup
	wait := func(client, namespace string) {
		semaphore.mu.Lock()
		waiterCount := len(semaphore.waiters)
		semaphore.mu.Unlock()
		running.Go(func() {
			if semaphore.acquire(t.Context(), client, namespace) != nil {
				return
			}
			mu.Lock()
			order = append(order, client+namespace)
			mu.Unlock()
			semaphore.release()
		})
		require.Eventually(t, func() bool {
			semaphore.mu.Lock()
			defer semaphore.mu.Unlock()
			return len(semaphore.waiters) == waiterCount+1
		}, 10*time.Second, 10*time.Microsecond)
	}
	for range 10 {
		wait("other", "1")
		wait("server", "hostile")
	}
	wait("server", "a")
	wait("server", "b")
	semaphore.release()
	running.Wait()
	require.Len(t, order, 22)
	require.Less(t, slices.Index(order, "servera"), 4, order)
	require.Less(t, slices.Index(order, "serverb"), 6, order)
	require.Empty(t, semaphore.lastAdmitted)
	require.Equal(t, 1, semaphore.free)
}

// TestSemaphorePassesOnAdmission checks that an admission goes to the next waiter if its owner disconnects at
// the same moment.
func TestSemaphorePassesOnAdmission(t *testing.T) {
	semaphore := newFairSemaphore(2)
	var running sync.WaitGroup
	for range 200 {
		running.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if semaphore.acquire(ctx, "a", "b") == nil {
				time.Sleep(100 * time.Microsecond)
				semaphore.release()
			}
		})
	}
	running.Wait()
	require.Equal(t, 2, semaphore.free)
	require.Empty(t, semaphore.waiters)
}

// TestShares checks that one client gets half of the amount, and that a further client gets half of the free amount.
func TestShares(t *testing.T) {
	s := newClientShares(120)
	takeAll := func(client string) (taken int) {
		for s.acquire(client, 1) {
			taken++
		}
		return taken
	}
	require.Equal(t, 60, takeAll("a"))
	require.Equal(t, 30, takeAll("b"))
	require.False(t, s.acquire("a", 1))
	require.Equal(t, 15, takeAll("c"))
	s.release("a", 60)
	require.Equal(t, 37, takeAll("d"), "half of the free amount")
	s.release("b", s.held["b"])
	s.release("c", 15)
	s.release("d", s.held["d"])
	require.Empty(t, s.held)
	require.EqualValues(t, 120, s.free)
}

// TestLimitConnections connects from two addresses of this machine.
func TestLimitConnections(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	metrics := newMetrics()
	listener := LimitConnections(inner, metrics)
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
		connection.Close() // a second Close must not release the share again
	}
	connect("127.0.0.2")
	require.Eventually(t, func() bool { return len(accepted) == 1 }, 30*time.Second, time.Millisecond)
}
