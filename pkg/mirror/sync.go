package mirror

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// processNext syncs the next key. It returns false after the queue has been shut down.
func (m *Mirror) processNext(ctx context.Context) bool {
	key, shutdown := m.queue.Get()
	if shutdown {
		return false
	}
	defer m.queue.Done(key)
	result, err := m.sync(ctx, key)
	m.results.set(key, result, err)
	if err == nil || result == unfit { // only a change of the hub's policy makes it fit
		m.queue.Forget(key)
	} else {
		m.queue.AddRateLimited(key)
	}
	return true
}

// sync makes or repairs the copy of a policy. It leaves a copy without a policy to the deleter.
func (m *Mirror) sync(ctx context.Context, key cache.ObjectName) (state, error) {
	origin, wanted := m.sources.get(key)
	current := m.localOf(key)
	target := m.namespaceOf(key.Namespace)
	switch {
	case m.isExempt(key.Namespace):
		return none, nil
	case wanted == nil:
		if current != nil && current.origin == origin {
			m.deleter.wake()
		}
		return none, nil
	case target == nil || target.isTerminating:
		return noNamespace, nil
	case wanted.problem != "":
		return unfit, errors.New(wanted.problem)
	case current != nil && current.origin != origin:
		return conflict, conflictError(current.origin)
	case current != nil && current.digest == wanted.digest:
		return copied, nil
	}
	c, err := m.contentOf(ctx, wanted)
	if err != nil {
		return failed, err
	}
	err = m.write(ctx, key, origin, c, current == nil && !m.results.isConflict(key))
	var conflicting *conflictingError
	switch {
	case errors.As(err, &conflicting):
		return conflict, err
	case apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err):
		return refused, err
	case err != nil:
		return failed, err
	}
	return copied, nil
}

// contentOf returns the content of a source, and reads it from the hub if it is not cached.
func (m *Mirror) contentOf(ctx context.Context, wanted *source) (content, error) {
	if wanted.content != nil {
		return *wanted.content, nil
	}
	full, err := m.hub.read(ctx, wanted.key)
	if err != nil {
		return content{}, err
	}
	if full == nil || contentOf(full).digest() != wanted.digest {
		return content{}, errors.New("the policy has changed on the hub since it was listed")
	}
	return contentOf(full), nil
}

// write creates the copy, or updates the ConfigMap that exists. isNew means that there is probably none. The update has
// the resourceVersion that write has read, so it undoes no change of others that write has not seen.
func (m *Mirror) write(ctx context.Context, key cache.ObjectName, origin string, c content, isNew bool) error {
	configMaps := m.client.CoreV1().ConfigMaps(key.Namespace)
	create := func() error {
		_, err := configMaps.Create(ctx, newCopy(key, origin, c), metav1.CreateOptions{FieldManager: Name})
		switch {
		case apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			return nil // the handler of Namespaces enqueues the key when the namespace returns
		case err != nil:
			return fmt.Errorf("create the copy: %w", err)
		}
		m.wrote(key, "create")
		return nil
	}
	if isNew {
		if err := create(); !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	existing, err := configMaps.Get(ctx, key.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return create()
	}
	if err != nil {
		return fmt.Errorf("read the copy: %w", err)
	}
	if existing.Labels[OriginLabel] != origin {
		return conflictError(existing.Labels[OriginLabel])
	}
	updated := c.applyTo(existing, origin)
	if equality.Semantic.DeepEqual(existing, updated) {
		return nil
	}
	if _, err := configMaps.Update(ctx, updated, metav1.UpdateOptions{FieldManager: Name}); err != nil {
		return fmt.Errorf("update the copy: %w", err)
	}
	m.wrote(key, "update")
	return nil
}

// wrote logs and counts a write of a copy.
func (m *Mirror) wrote(key cache.ObjectName, verb string) {
	m.results.writes.WithLabelValues(verb).Inc()
	m.log.Info("copy written", "namespace", key.Namespace, "name", key.Name, "verb", verb)
}

// conflictingError says that a ConfigMap of the same name is not a copy from this hub.
type conflictingError struct{ message string }

func (e *conflictingError) Error() string { return e.message }

func conflictError(origin string) error {
	if origin != "" {
		return &conflictingError{"the ConfigMap of this name is a copy from another hub, " + origin + "; delete one of the two, or give this one the label of the new hub"}
	}
	return &conflictingError{"a ConfigMap of this name exists, and " + Name + " did not make it; rename or delete one of the two"}
}
