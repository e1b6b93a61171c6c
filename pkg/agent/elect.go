package agent

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// A leader that is gone is followed within leaseDuration and two tries of its successor, which are one to 2.2 times
// retryPeriod apart (leaderelection.JitterFactor); one that cannot renew for renewDeadline gives up before that.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 500 * time.Millisecond
)

// elect waits for the Lease, works while it is held, and gives it back after the last write. An error
// means that it was lost, or that the work failed; what happened in the meantime is not known then, and
// the process is to end.
func (a *Agent) elect(ctx context.Context) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	// The Lease is given up by electing alone, so that none is given up while something is written.
	electing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var started atomic.Bool
	worked := make(chan error, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: a.options.Namespace, Name: Name},
			Client:     a.client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: host + "_" + string(uuid.NewUUID())},
		},
		LeaseDuration:   leaseDuration,
		RenewDeadline:   renewDeadline,
		RetryPeriod:     retryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				started.Store(true)
				working, cancel := context.WithCancel(leading)
				defer cancel()
				defer context.AfterFunc(ctx, cancel)()
				worked <- a.lead(working, leading)
				stop()
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return err
	}
	a.checkLease = func() error {
		// Less than the Lease lasts, and more than it takes to renew: a process that was stopped for a while
		// knows it before its renewal fails.
		if !elector.IsLeader() || elector.Check(renewDeadline-leaseDuration) != nil {
			return errors.New("the Lease may be lost")
		}
		return nil
	}
	defer context.AfterFunc(ctx, func() {
		if !started.Load() {
			stop()
		}
	})()
	a.log.Info("waiting for the Lease", "namespace", a.options.Namespace, "lease", Name)
	elector.Run(electing)
	if !started.Load() {
		return nil
	}
	if err := <-worked; err != nil || ctx.Err() != nil {
		return err
	}
	return errors.New("the Lease is lost: another agent may lead")
}

// lease is what an Event about the agent itself is on.
func (a *Agent) lease(ctx context.Context) *corev1.ObjectReference {
	reference := &corev1.ObjectReference{APIVersion: "coordination.k8s.io/v1", Kind: "Lease", Namespace: a.options.Namespace, Name: Name}
	// Without a UID, as where no leader is elected, it is found by its name.
	if lease, err := a.client.CoordinationV1().Leases(a.options.Namespace).Get(ctx, Name, metav1.GetOptions{}); err == nil {
		reference.UID = lease.UID
	}
	return reference
}
