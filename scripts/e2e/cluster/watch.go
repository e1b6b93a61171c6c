package cluster

import (
	"context"
	"errors"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// Delivered is a new NetworkPolicy, with the time when a watch delivered it.
type Delivered struct {
	*networkingv1.NetworkPolicy
	At time.Time
}

// WatchCreated returns a channel of the NetworkPolicies that are created from now on. stop ends the watch.
func WatchCreated(ctx context.Context, client kubernetes.Interface) (created <-chan Delivered, stop func(), err error) {
	list, err := client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, nil, err
	}
	watcher, err := client.NetworkingV1().NetworkPolicies("").Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return nil, nil, err
	}
	delivered := make(chan Delivered, 100_000)
	go func() {
		defer close(delivered)
		for event := range watcher.ResultChan() {
			if policy, ok := event.Object.(*networkingv1.NetworkPolicy); ok && event.Type == watch.Added {
				delivered <- Delivered{policy, time.Now()}
			}
		}
	}()
	return delivered, watcher.Stop, nil
}

// ErrQuiet is the error of AwaitCreated if no further NetworkPolicy is created for the given time.
var ErrQuiet = errors.New("no further NetworkPolicy was created")

// AwaitCreated waits for n NetworkPolicies, and returns these in their order. If none is created for the time quiet, it
// returns those so far and ErrQuiet.
func AwaitCreated(ctx context.Context, created <-chan Delivered, n int, quiet time.Duration) ([]Delivered, error) {
	var all []Delivered
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	for len(all) < n {
		select {
		case policy, ok := <-created:
			if !ok {
				return all, errors.New("the watch ended")
			}
			all = append(all, policy)
			timer.Reset(quiet)
		case <-ctx.Done():
			return all, ctx.Err()
		case <-timer.C:
			return all, ErrQuiet
		}
	}
	return all, nil
}
