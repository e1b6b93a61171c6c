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

// A leader that fails loses the Lease after leaseDuration. Its successor then takes it within two tries, 1 to 2.2 times
// retryPeriod apart (leaderelection.JitterFactor). A leader that cannot renew for renewDeadline gives up before that.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 500 * time.Millisecond
)

// lease is the agent's Lease. An agent that is not elected needs none.
type lease struct {
	client    kubernetes.Interface
	namespace string
	log       *slog.Logger
	elector   atomic.Pointer[leaderelection.LeaderElector] // nil without an election
}

func newLease(client kubernetes.Interface, namespace string, log *slog.Logger) *lease {
	return &lease{client: client, namespace: namespace, log: log}
}

// check returns an error if another agent may hold the Lease. Every write calls it first.
func (l *lease) check() error {
	elector := l.elector.Load()
	// This allows less time than the Lease lasts, and more than a renewal takes. A process that was stopped for a while
	// gets the error before its next renewal fails.
	if elector != nil && (!elector.IsLeader() || elector.Check(renewDeadline-leaseDuration) != nil) {
		return errors.New("the Lease may be lost")
	}
	return nil
}

// elect waits for the Lease, calls lead, and releases the Lease when lead has returned. lead must return soon after its
// first argument ends. Its API requests use the second, because that ends only with the Lease.
//
// An error means that lead failed, or that the Lease is lost. Another agent may have written since, so the process must
// exit.
func (l *lease) elect(ctx context.Context, lead func(ctx, requests context.Context) error) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	// Only the end of electing releases the Lease, and that comes after the last write.
	electing, release := context.WithCancel(context.WithoutCancel(ctx))
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
			OnStartedLeading: func(holding context.Context) {
				started.Store(true)
				leading, cancel := context.WithCancel(holding)
				defer cancel()
				defer context.AfterFunc(ctx, cancel)()
				result <- lead(leading, holding)
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
	elector.Run(electing)
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
	// Without an election there may be no Lease. Then the Event has no UID, and its readers find it by the name.
	if lease, err := l.client.CoordinationV1().Leases(l.namespace).Get(ctx, Name, metav1.GetOptions{}); err == nil {
		reference.UID = lease.UID
	}
	return reference
}
