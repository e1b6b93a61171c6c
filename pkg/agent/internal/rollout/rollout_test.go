package rollout

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/awsranges"
)

func TestRolloutFinishesWhenAllKeysAreSynced(t *testing.T) {
	a, b := cache.NewObjectName("n", "a"), cache.NewObjectName("n", "b")
	first, second := &awsranges.Table{}, &awsranges.Table{}
	var reports []string
	report := func(name string) func(int, int) {
		return func(written, waiting int) { reports = append(reports, fmt.Sprint(name, " ", written, " ", waiting)) }
	}
	isClosed := func(synced <-chan struct{}) bool {
		select {
		case <-synced:
			return true
		default:
			return false
		}
	}
	var r Rollout
	require.True(t, isClosed(r.Start(first, nil, report("none"))))
	synced := r.Start(first, []cache.ObjectName{a, b}, report("both"))
	r.PolicySynced(a, first, true)
	r.PolicySynced(a, first, true)
	r.PolicySynced(b, second, true)
	require.False(t, isClosed(synced), "b waits: a second sync of a counts once, and one with another table does not count")
	r.PolicySynced(b, first, false)
	require.True(t, isClosed(synced))
	r.PolicySynced(b, first, true)
	synced = r.Start(first, []cache.ObjectName{a, b}, report("overtaken"))
	r.PolicySynced(a, first, true)
	r.Start(second, []cache.ObjectName{a}, report("last"))
	require.True(t, isClosed(synced))
	r.PolicySynced(a, second, true)
	require.Equal(t, []string{"none 0 0", "both 1 0", "overtaken 1 1", "last 1 0"}, reports)
}
