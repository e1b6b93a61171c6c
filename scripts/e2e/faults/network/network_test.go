package network

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
)

func TestFaultWatchesCut(t *testing.T) {
	w := harness.NewWorld(t, "watches", 10)
	p := harness.StartProxy(t)
	p.WatchLimit.Store(int64(time.Second))
	harness.StartAgentWithRanges(t, "--kubeconfig", p.Kubeconfig)
	// The client waits longer from one to the next, so it is the number that ends it.
	for version, until := 0, time.Now().Add(3*time.Minute); p.CutCount.Load() <= 5; version++ {
		require.True(t, time.Now().Before(until), "only %d watches were cut", p.CutCount.Load())
		w.Put(0, 200, version%5)
		time.Sleep(time.Second)
	}
	w.Remove(150, 200)
	w.AwaitRest(time.Minute)
}

// TestFaultWatchesBehind deletes ConfigMaps while the agent cannot see it. It sees their NetworkPolicies go, which the
// control plane's garbage collector deletes, and is not to write them again from the ConfigMaps it remembers.
func TestFaultWatchesBehind(t *testing.T) {
	w := harness.NewWorld(t, "behind", 10)
	p := harness.StartProxy(t)
	p.WatchLimit.Store(int64(time.Second))
	harness.StartAgentWithRanges(t, "--kubeconfig", p.Kubeconfig)
	w.Put(0, 100, 0)
	harness.Eventually(t, "all are written", func() bool { return w.WrittenCount() == 100 })
	p.HidesConfigMaps.Store(true)
	time.Sleep(2 * time.Second) // by when the watch of before is over
	mark, err := harness.Control(t).Mark()
	require.NoError(t, err)
	w.Remove(50, 100)
	harness.Eventually(t, "the garbage is collected", func() bool { return w.WrittenCount() == 50 })
	time.Sleep(5 * time.Second)
	require.Empty(t, w.Writes(mark), "the policies are gone")
	p.HidesConfigMaps.Store(false)
	w.Put(100, 150, 0)
	w.AwaitRest(time.Minute)
}

func TestFaultRequestsFail(t *testing.T) {
	w := harness.NewWorld(t, "requests", 10)
	p := harness.StartProxy(t)
	p.FailPercent.Store(30)
	p.Delay.Store(int64(2 * time.Second))
	harness.StartAgentWithRanges(t, "--kubeconfig", p.Kubeconfig)
	w.Put(0, 300, 0)
	w.Put(0, 100, 1)
	w.Remove(250, 300)
	w.AwaitRest(time.Minute)
	require.Greater(t, p.RefusedCount.Load(), int64(100))
	require.Greater(t, p.DelayedCount.Load(), int64(10))
}
