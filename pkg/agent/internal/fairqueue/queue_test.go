package fairqueue

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/cache"
)

// TestNamespacesTakeTurns has one namespace with 100 keys between others with one.
func TestNamespacesTakeTurns(t *testing.T) {
	queue := New("test", prometheus.NewRegistry())
	order := queue.order
	for i := range 100 {
		queue.Add(cache.NewObjectName("hostile", fmt.Sprint(i)))
	}
	queue.Add(cache.NewObjectName("a", "x"))
	first, _ := queue.Get()
	require.Equal(t, "hostile/0", first.String())
	queue.Add(cache.NewObjectName("b", "x"))
	second, _ := queue.Get()
	require.Equal(t, "a/x", second.String())
	third, _ := queue.Get()
	require.Equal(t, "b/x", third.String())
	require.Zero(t, order.Len(), "99 keys wait, and Get must return none of them")

	queue.Add(first) // while it is in progress
	queue.Done(first)
	queue.Add(cache.NewObjectName("c", "x"))
	for i := 1; i < 100; i++ {
		key, _ := queue.Get()
		if i == 2 {
			require.Equal(t, "c/x", key.String(), "namespaces take turns")
			queue.Done(key)
			key, _ = queue.Get()
		}
		require.Equal(t, fmt.Sprint("hostile/", i), key.String())
		queue.Done(key)
	}
	again, _ := queue.Get()
	require.Equal(t, first, again)
	queue.Done(again)
	queue.Done(second)
	queue.Done(third)
	require.Empty(t, order.inProgress)
	require.Empty(t, order.waiting)
}

// TestWorkersGetAllKeys also requires that never two workers have keys of one namespace.
func TestWorkersGetAllKeys(t *testing.T) {
	queue := New("test", prometheus.NewRegistry())
	var mu sync.Mutex
	busy, done := make(map[string]bool), make(map[cache.ObjectName]int)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for {
				key, shutdown := queue.Get()
				if shutdown {
					return
				}
				mu.Lock()
				twice := busy[key.Namespace]
				busy[key.Namespace] = true
				mu.Unlock()
				if twice {
					t.Errorf("two workers have keys of namespace %s", key.Namespace)
				}
				time.Sleep(10 * time.Microsecond)
				mu.Lock()
				delete(busy, key.Namespace)
				done[key]++
				mu.Unlock()
				queue.Done(key)
			}
		})
	}
	for i := range 5000 {
		queue.Add(cache.NewObjectName(fmt.Sprint(i%20), fmt.Sprint(i)))
	}
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(done) == 5000
	}, time.Minute, time.Millisecond)
	queue.ShutDown()
	workers.Wait()
}
