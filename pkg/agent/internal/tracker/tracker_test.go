package tracker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
)

var (
	key = cache.NewObjectName("tenant-a", "egress")
	now = time.Unix(1_700_000_000, 0)
)

func TestOnlyTheSecondWriteWaits(t *testing.T) {
	tracker := New(time.Minute)
	require.LessOrEqual(t, tracker.StepDelay(key, netpol.Replace, now), time.Duration(0))
	require.Equal(t, time.Minute, tracker.StepDelay(key, netpol.Narrow, now))
	require.Equal(t, 20*time.Second, tracker.StepDelay(key, netpol.Narrow, now.Add(40*time.Second)))
	require.LessOrEqual(t, tracker.StepDelay(key, netpol.Narrow, now.Add(time.Minute)), time.Duration(0))
	tracker.StepDelay(key, netpol.Widen, now)
	require.Equal(t, time.Minute, tracker.StepDelay(key, netpol.Narrow, now.Add(time.Hour)), "another first write starts the wait again")
}

func TestTakeChangedAtReturnsOldestChange(t *testing.T) {
	tracker := New(0)
	tracker.SetChanged(key, now)
	tracker.SetChanged(key, now.Add(time.Second))
	tracker.Drop(key)
	require.Equal(t, now, tracker.TakeChangedAt(key), "Drop keeps the time for the next sync")
	require.Zero(t, tracker.TakeChangedAt(key))
	tracker.RestoreChangedAt(key, time.Time{})
	require.Zero(t, tracker.Size())
	tracker.RestoreChangedAt(key, now)
	require.Equal(t, now, tracker.TakeChangedAt(key))
}

func TestRepeatedWarningIsNotNew(t *testing.T) {
	tracker := New(0)
	require.True(t, tracker.RecordWarning(key, "a", "x"))
	require.False(t, tracker.RecordWarning(key, "a", "x"))
	require.True(t, tracker.RecordWarning(key, "b", "x"), "each topic has its own last Warning")
	require.False(t, tracker.RecordWarning(key, "a", ""))
	require.True(t, tracker.RecordWarning(key, "a", "x"), "the problem has returned")
	warnings := tracker.Warnings(key)
	tracker.Drop(key)
	tracker.RestoreWarnings(key, warnings)
	require.False(t, tracker.RecordWarning(key, "b", "x"))
}

func TestSetStateReturnsPreviousState(t *testing.T) {
	tracker := New(0)
	require.Empty(t, tracker.SetState(key, netpol.Invalid))
	require.Equal(t, netpol.Invalid, tracker.SetState(key, netpol.Applied))
	require.Equal(t, netpol.Applied, tracker.Drop(key))
	require.Empty(t, tracker.Drop(key))
	require.Zero(t, tracker.Size())
}

func TestKeysNamingFollowsThePolicies(t *testing.T) {
	s3, s3East, ec2 := awsranges.ServiceRegion{Service: "S3"}, awsranges.ServiceRegion{Service: "S3", Region: "us-east-1"}, awsranges.ServiceRegion{Service: "EC2"}
	other := cache.NewObjectName("tenant-b", "egress")
	tracker := New(0)
	tracker.SetServiceRegions(key, []awsranges.ServiceRegion{s3, s3East, s3})
	tracker.SetServiceRegions(other, []awsranges.ServiceRegion{ec2})
	require.Equal(t, []cache.ObjectName{key}, tracker.KeysNaming([]awsranges.ServiceRegion{s3, s3East}), "no key is repeated")
	require.ElementsMatch(t, []cache.ObjectName{key, other}, tracker.KeysNaming([]awsranges.ServiceRegion{s3East, ec2}))
	tracker.SetServiceRegions(key, []awsranges.ServiceRegion{ec2})
	require.Empty(t, tracker.KeysNaming([]awsranges.ServiceRegion{s3, s3East}))
	tracker.SetServiceRegions(other, nil)
	require.Equal(t, []cache.ObjectName{key}, tracker.KeysNaming([]awsranges.ServiceRegion{ec2}))
	tracker.Drop(key)
	require.Empty(t, tracker.policiesNaming)
}
