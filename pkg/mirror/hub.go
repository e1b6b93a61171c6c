package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"egress-agent/pkg/internal/filewatch"
	"egress-agent/pkg/internal/slimlist"
	"egress-agent/pkg/policy"
)

// hubSelector selects the policies of the hub. It leaves out copies: two mirrors that copy from each other would keep a
// deleted policy alive.
const hubSelector = policy.Label + "=" + policy.LabelValue + ",!" + OriginLabel

const (
	// listInterval is the time between two lists. The watch in between cannot tell that the hub was restored from a
	// backup: it waits for versions that the hub has not reached again.
	listInterval = 5 * time.Minute
	// listTimeout and readTimeout limit a list, and any other request except a watch.
	listTimeout = 2 * time.Minute
	readTimeout = 15 * time.Second
	// The wait before another attempt. It doubles with each failure.
	minHubDelay = time.Second
	maxHubDelay = time.Minute
)

// hub follows the policies of another cluster. It only reads there.
type hub struct {
	kubeconfig string
	sources    *sources
	isSelf     func(origin string) bool
	listed     func(changed []cache.ObjectName) // called after each complete list
	changed    func(cache.ObjectName)           // called after each change that the watch delivers
	log        *slog.Logger

	reload chan struct{}                        // ends the watch or the wait
	client atomic.Pointer[kubernetes.Interface] // of the last complete list
	cause  string                               // the last logged cause of a failure, or followed
}

// run follows the hub until ctx ends. While it cannot, the sources do not change.
func (h *hub) run(ctx context.Context) {
	go filewatch.New(h.kubeconfig).Follow(ctx, h.reloadSoon)
	for delay := minHubDelay; ctx.Err() == nil; {
		startedAt := time.Now()
		if err := h.follow(ctx); err != nil {
			h.report(ctx, err)
		}
		if time.Since(startedAt) > delay { // else a hub that ends each watch at once would be listed all the time
			delay = minHubDelay
		}
		select {
		case <-ctx.Done():
		case <-h.reload:
			delay = minHubDelay
		case <-time.After(delay/2 + rand.N(delay/2)): // several clusters may lose a hub in the same moment
			delay = min(2*delay, maxHubDelay)
		}
	}
}

// reloadSoon makes run read the kubeconfig and the list again.
func (h *hub) reloadSoon() {
	select {
	case h.reload <- struct{}{}:
	default:
	}
}

// follow lists the policies of the hub, and watches them until listInterval has passed or the connection ends. It reads
// the kubeconfig each time, so that a new one needs no restart. It returns an error if it could not do both.
func (h *hub) follow(ctx context.Context) error {
	client, err := connect(h.kubeconfig)
	if err != nil {
		return err
	}
	origin, err := h.identify(ctx, client)
	if err != nil {
		return err
	}
	listCtx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	cachedBytes := 0
	list, resourceVersion, err := slimlist.List(listCtx, slimlist.Resource{
		Name: "configmaps", Selector: hubSelector, Client: client.CoreV1().RESTClient(),
	}, func(full *corev1.ConfigMap) *source {
		return newSource(full, func(size int) bool {
			if cachedBytes+size > maxCachedBytes {
				return false
			}
			cachedBytes += size
			return true
		})
	})
	if err != nil {
		return err
	}
	h.client.Store(&client)
	h.listed(h.sources.replace(origin, list))

	seconds := int64(listInterval / time.Second)
	watchCtx, stop := context.WithTimeout(ctx, listInterval)
	defer stop()
	watcher, err := client.CoreV1().ConfigMaps(metav1.NamespaceAll).Watch(watchCtx, metav1.ListOptions{
		LabelSelector: hubSelector, ResourceVersion: resourceVersion, TimeoutSeconds: &seconds,
	})
	if err != nil {
		return err
	}
	defer watcher.Stop()
	h.reportFollowed(origin)
	h.watch(watchCtx, watcher.ResultChan())
	return nil
}

// watch takes over the changes that a watch delivers, until it ends.
func (h *hub) watch(ctx context.Context, events <-chan watch.Event) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.reload:
			h.reloadSoon() // for run, which otherwise waits
			return
		case event, isOpen := <-events:
			full, isConfigMap := event.Object.(*corev1.ConfigMap)
			if !isOpen || !isConfigMap {
				return // the connection is lost, or the hub has sent an error
			}
			if event.Type == watch.Deleted {
				h.sources.remove(cache.MetaObjectToName(full))
			} else {
				h.sources.put(full)
			}
			h.changed(cache.MetaObjectToName(full))
		}
	}
}

// identify returns the identity of the hub: the value of OriginLabel.
func (h *hub) identify(ctx context.Context, client kubernetes.Interface) (origin string, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	system, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	origin = string(system.UID)
	switch {
	case origin == "" || len(validation.IsValidLabelValue(origin)) > 0:
		return "", &failure{"the hub has no identity", fmt.Errorf("the UID of its Namespace %s is %q", metav1.NamespaceSystem, origin)}
	case h.isSelf(origin):
		return "", &failure{"the hub is this cluster", errors.New("give the kubeconfig of another cluster")}
	}
	return origin, nil
}

// read asks the hub for a policy. It returns nil if the hub lacks the policy.
func (h *hub) read(ctx context.Context, key cache.ObjectName) (*corev1.ConfigMap, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	full, err := (*h.client.Load()).CoreV1().ConfigMaps(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	// A proxy in place of the API server may answer 404 to anything.
	isAnswer := !apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
	switch {
	case apierrors.IsNotFound(err) && isAnswer:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read ConfigMap %s of the hub: %w", key, err)
	case full.Labels[policy.Label] != policy.LabelValue || full.Labels[OriginLabel] != "":
		return nil, nil
	}
	return full, nil
}

// connect returns a client with the credentials of a kubeconfig. The content is secret, so no error has a part of it.
func connect(kubeconfig string) (kubernetes.Interface, error) {
	loaded, err := clientcmd.LoadFromFile(kubeconfig)
	if err == nil {
		err = clientcmd.ResolveLocalPaths(loaded)
	}
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return nil, &failure{"the kubeconfig cannot be read", err}
	}
	if err != nil {
		return nil, &failure{"the kubeconfig is invalid", errors.New("it has a mistake in its syntax, or is no kubeconfig")}
	}
	config, err := clientcmd.NewNonInteractiveClientConfig(*loaded, "", &clientcmd.ConfigOverrides{}, nil).ClientConfig()
	if err != nil {
		return nil, &failure{"the kubeconfig is invalid", err}
	}
	config.UserAgent, config.QPS, config.WarningHandler = Name, -1, rest.NoWarnings{}
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, &failure{"the kubeconfig is invalid", err}
	}
	return client, nil
}

// failure is an error with a constant cause. hub logs a cause once.
type failure struct {
	cause string
	err   error
}

func (f *failure) Error() string { return f.err.Error() }

// report logs why the hub cannot be followed, unless the last failure had the same cause.
func (h *hub) report(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	cause, hint := "no answer from the hub", "check the server of the kubeconfig, and the network"
	var known *failure
	switch {
	case errors.As(err, &known):
		cause, hint = known.cause, "correct the kubeconfig"
	case apierrors.IsUnauthorized(err):
		cause, hint = "the hub does not accept the credentials", "renew the token or the certificate of the kubeconfig"
	case apierrors.IsForbidden(err):
		cause, hint = "the credentials lack a right on the hub", "apply deploy/components/mirror/hub-rbac.yaml to the hub"
	case errors.Is(err, io.ErrUnexpectedEOF):
		cause, hint = "the answer of the hub is incomplete", "check the network, and proxies before the hub"
	}
	if cause != h.cause {
		h.cause = cause
		h.log.Warn("hub lost, retrying", "cause", cause, "kubeconfig", h.kubeconfig, "error", err, "hint", hint)
	}
}

// reportFollowed logs that the hub is followed, unless it was before.
func (h *hub) reportFollowed(origin string) {
	if h.cause != followed {
		h.cause = followed
		h.log.Info("hub followed", "origin", origin, "policies", h.sources.size())
	}
}

// followed is the cause while there is no failure.
const followed = "followed"
