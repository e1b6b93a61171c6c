package cluster

import (
	"errors"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Workers is the number of calls that Each makes at a time.
const Workers = 8

// Bare returns a client that is as fast as possible: it uses protobuf, no compression and no rate limit.
func Bare(kubeconfig string) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.UserAgent, config.ContentType, config.DisableCompression = -1, "bare", runtime.ContentTypeProtobuf, true
	return kubernetes.NewForConfig(config)
}

// Each calls action with every number from 0 to count-1, on Workers goroutines. A goroutine stops at its first error.
// Each returns all these errors, joined.
func Each(count int, action func(i int) error) error { return EachOf(Workers, count, action) }

// EachOf is Each on another number of goroutines.
func EachOf(workers, count int, action func(i int) error) error {
	var running sync.WaitGroup
	errs := make([]error, workers)
	for worker := range workers {
		running.Go(func() {
			for i := worker; i < count && errs[worker] == nil; i += workers {
				errs[worker] = action(i)
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}
