package cluster

import (
	"errors"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Workers is how many requests Each makes at a time.
const Workers = 8

// Bare returns a client that sends protobuf, takes it as it is and knows no limit: as fast as one can be.
func Bare(kubeconfig string) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.UserAgent, config.ContentType, config.DisableCompression = -1, "bare", runtime.ContentTypeProtobuf, true
	return kubernetes.NewForConfig(config)
}

// Each does something with each number below n, side by side. A worker whose work fails stops; the errors
// are joined.
func Each(n int, do func(i int) error) error {
	var running sync.WaitGroup
	errs := make([]error, Workers)
	for worker := range Workers {
		running.Go(func() {
			for i := worker; i < n && errs[worker] == nil; i += Workers {
				errs[worker] = do(i)
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}
