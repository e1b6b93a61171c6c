package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// If a leader fails, its Lease expires after leaseDuration. A standby then takes the Lease within two tries. The time
// between two tries is 1 to 2.2 times retryPeriod (leaderelection.JitterFactor). A leader that cannot renew the Lease
// stops after renewDeadline, which is before the Lease expires.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 500 * time.Millisecond
)

// lease is the agent's Lease. An agent without Options.LeaderElect does not use it.
type lease struct {
	client    kubernetes.Interface
	namespace string
	log       *slog.Logger
	elector   atomic.Pointer[leaderelection.LeaderElector] // nil before elect, and if the agent leads without an election
}

func newLease(client kubernetes.Interface, namespace string, log *slog.Logger) *lease {
	return &lease{client: client, namespace: namespace, log: log}
}

// check returns an error if another agent may hold the Lease. Every write calls it first.
func (l *lease) check() error {
	elector := l.elector.Load()
	// elector.Check fails renewDeadline after the last renewal. That is before the Lease expires, and later than the
	// next renewal. A process that was suspended gets this error before its next renewal fails.
	if elector != nil && (!elector.IsLeader() || elector.Check(renewDeadline-leaseDuration) != nil) {
		return errors.New("the Lease may be lost")
	}
	return nil
}

// elect waits for the Lease, calls lead, and releases the Lease after lead has returned. lead must return soon after
// its ctx ends. Its API requests use requestCtx, which ends only if the Lease is lost.
//
// elect returns an error if lead failed or the Lease is lost. Another agent may have written since then, so the process
// must exit.
func (l *lease) elect(ctx context.Context, lead func(ctx, requestCtx context.Context) error) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	// The Lease is released when electionCtx ends. That must be after the last write.
	electionCtx, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	var started atomic.Bool
	result := make(chan error, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: l.namespace, Name: Name},
			Client:     l.client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: host + "_" + string(uuid.NewUUID())},
		},
		LeaseDuration:   leaseDuration,
		RenewDeadline:   renewDeadline,
		RetryPeriod:     retryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leaseCtx context.Context) {
				started.Store(true)
				leadCtx, cancel := context.WithCancel(leaseCtx)
				defer cancel()
				defer context.AfterFunc(ctx, cancel)()
				result <- lead(leadCtx, leaseCtx)
				release()
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return err
	}
	l.elector.Store(elector)
	defer context.AfterFunc(ctx, func() {
		if !started.Load() {
			release()
		}
	})()
	l.log.Info("waiting for the Lease", "namespace", l.namespace, "lease", Name)
	elector.Run(electionCtx)
	if !started.Load() {
		return nil
	}
	if err := <-result; err != nil || ctx.Err() != nil {
		return err
	}
	return errors.New("the Lease is lost: another agent may lead")
}

// reference returns the object of an Event about the agent: its Lease.
func (l *lease) reference(ctx context.Context) *corev1.ObjectReference {
	reference := &corev1.ObjectReference{APIVersion: "coordination.k8s.io/v1", Kind: "Lease", Namespace: l.namespace, Name: Name}
	// If the agent leads without an election, there may be no Lease. The Event then refers to the Lease by name only.
	if lease, err := l.client.CoordinationV1().Leases(l.namespace).Get(ctx, Name, metav1.GetOptions{}); err == nil {
		reference.UID = lease.UID
	}
	return reference
}
