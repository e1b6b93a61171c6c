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
	// The client waits longer after each cut, so the loop ends after a number of cuts, not after a time.
	for version, until := 0, time.Now().Add(3*time.Minute); p.CutCount.Load() <= 5; version++ {
		require.True(t, time.Now().Before(until), "only %d watches were cut", p.CutCount.Load())
		w.Put(0, 200, version%5)
		time.Sleep(time.Second)
	}
	w.Remove(150, 200)
	w.AwaitRest(time.Minute)
}

// TestFaultWatchesBehind deletes ConfigMaps while the agent cannot list or watch them. The agent sees that the garbage
// collector deletes their NetworkPolicies. It must not write them again from the ConfigMaps in its cache.
func TestFaultWatchesBehind(t *testing.T) {
	w := harness.NewWorld(t, "behind", 10)
	p := harness.StartProxy(t)
	p.WatchLimit.Store(int64(time.Second))
	harness.StartAgentWithRanges(t, "--kubeconfig", p.Kubeconfig)
	w.Put(0, 100, 0)
	harness.Eventually(t, "all are written", func() bool { return w.WrittenCount() == 100 })
	p.HidesConfigMaps.Store(true)
	time.Sleep(2 * time.Second) // until the last watch has ended
	mark, err := harness.Control(t).Mark()
	require.NoError(t, err)
	w.Remove(50, 100)
	harness.Eventually(t, "the garbage collector has deleted the NetworkPolicies", func() bool { return w.WrittenCount() == 50 })
	time.Sleep(5 * time.Second)
	require.Empty(t, w.Writes(mark), "the agent writes no NetworkPolicy of a deleted policy")
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
