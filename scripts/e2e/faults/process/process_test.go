package process

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
)

func TestFaultKilled(t *testing.T) {
	w := harness.NewWorld(t, "killed", 20)
	w.Put(0, 1000, 0)
	for _, after := range []int{50, 300, 700} {
		p := harness.StartAgentWithRanges(t)
		harness.Eventually(t, "some are written", func() bool { return w.WrittenCount() >= after })
		p.Kill(t)
	}
	p := harness.StartAgentWithRanges(t)
	w.AwaitRest(10 * time.Second)
	w.PutInBackground(0, 1000, 1)
	time.Sleep(500 * time.Millisecond)
	p.Kill(t)
	harness.StartAgentWithRanges(t)
	w.AwaitRest(time.Minute)
}

// TestFaultKilledBetweenWrites kills the agent after the first of the two writes of large changes. Its successor must
// do the second.
func TestFaultKilledBetweenWrites(t *testing.T) {
	w := harness.NewWorld(t, "between", 10)
	arguments := []string{"--chunk-peers", "1", "--settle", "10s"}
	p := harness.StartAgentWithRanges(t, arguments...)
	w.Put(0, 100, 0)
	harness.Eventually(t, "all are written", func() bool { return w.WrittenCount() == 100 })
	for version, after := range []int{1, 25, 50, 75} {
		harness.Eventually(t, "the earlier change is complete", func() bool { return w.WidenedCount() == 0 })
		w.PutInBackground(0, 100, version+1)
		harness.Eventually(t, "some have only the first write", func() bool { return w.WidenedCount() >= after })
		p.Kill(t)
		require.Positive(t, w.WidenedCount(), "the agent was killed between two writes")
		p = harness.StartAgentWithRanges(t, arguments...)
	}
	w.AwaitRest(time.Minute)
}

func TestFaultTwoAgents(t *testing.T) {
	for _, elect := range []bool{true, false} {
		w := harness.NewWorld(t, fmt.Sprintf("two-%t", elect), 10)
		arguments := []string{"--leader-elect=" + strconv.FormatBool(elect)}
		harness.StartAgentWithRanges(t, arguments...)
		w.Put(0, 100, 0)
		harness.StartAgentWithRanges(t, arguments...)
		w.Put(50, 200, 1)
		w.AwaitRest(time.Minute)
	}
}

func TestFaultLeaderFrozen(t *testing.T) {
	w := harness.NewWorld(t, "frozen", 10)
	first := harness.StartAgentWithRanges(t, "--leader-elect")
	w.Put(0, 100, 0)
	w.AwaitRest(10 * time.Second)
	second := harness.StartAgentWithRanges(t, "--leader-elect")
	require.NoError(t, first.Command.Process.Signal(syscall.SIGSTOP))
	w.Put(0, 100, 1)
	w.AwaitRest(10 * time.Second)
	require.Contains(t, second.Log(t), "msg=running")
	before := strings.Count(first.Log(t), "NetworkPolicy written")
	w.Put(0, 100, 2)
	require.NoError(t, first.Command.Process.Signal(syscall.SIGCONT))
	first.Ended = true
	ended := make(chan error, 1)
	go func() { ended <- first.Command.Wait() }()
	select {
	case err := <-ended:
		require.Error(t, err, "a process that has lost the Lease exits with an error")
	case <-time.After(harness.Timeout):
		require.FailNow(t, "the process does not exit")
	}
	require.Equal(t, before, strings.Count(first.Log(t), "NetworkPolicy written"), "the process writes nothing more")
	require.Contains(t, first.Log(t), "the Lease is lost")
	w.AwaitRest(time.Minute)
}
