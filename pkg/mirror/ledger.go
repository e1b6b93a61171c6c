package mirror

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// The ConfigMap of the ledger, in the mirror's own namespace, and its key.
const (
	ledgerName = Name
	ledgerKey  = "deletions.json"
)

// ledger is the record of the deletions within brakeWindow. It is in the cluster, because a mirror that restarts again
// and again would otherwise delete a fifth each time. An update fails if another mirror has written since.
type ledger struct {
	client    kubernetes.Interface
	namespace string
}

// entry is a number of deletions.
type entry struct {
	At    time.Time `json:"at"`
	Count int       `json:"count"`
}

// read returns the stored record and the deletions within brakeWindow. Without a record, both are nil. now is in UTC.
func (l *ledger) read(ctx context.Context, now time.Time) (*corev1.ConfigMap, []entry, error) {
	stored, err := l.client.CoreV1().ConfigMaps(l.namespace).Get(ctx, ledgerName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read ConfigMap %s/%s: %w", l.namespace, ledgerName, err)
	}
	var entries []entry
	if err := json.Unmarshal([]byte(stored.Data[ledgerKey]), &entries); err != nil {
		return nil, nil, fmt.Errorf("ConfigMap %s/%s: key %s: %w; delete this ConfigMap", l.namespace, ledgerName, ledgerKey, err)
	}
	return stored, recent(entries, now), nil
}

// write replaces the stored record and returns the new one. stored is nil if no record exists.
func (l *ledger) write(ctx context.Context, stored *corev1.ConfigMap, entries []entry) (*corev1.ConfigMap, error) {
	data, err := json.Marshal(entries)
	if err != nil {
		return nil, err
	}
	changed := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: l.namespace, Name: ledgerName,
		Labels: map[string]string{"app.kubernetes.io/name": "egress-mirror", "app.kubernetes.io/part-of": "egress-control"},
	}}
	if stored != nil {
		changed = stored.DeepCopy()
	}
	changed.Data = map[string]string{ledgerKey: string(data)}
	configMaps := l.client.CoreV1().ConfigMaps(l.namespace)
	var written *corev1.ConfigMap
	if stored == nil {
		written, err = configMaps.Create(ctx, changed, metav1.CreateOptions{FieldManager: Name})
	} else {
		written, err = configMaps.Update(ctx, changed, metav1.UpdateOptions{FieldManager: Name})
	}
	if err != nil {
		return nil, fmt.Errorf("write ConfigMap %s/%s: %w", l.namespace, ledgerName, err)
	}
	return written, nil
}

// recent returns the entries within brakeWindow. A clock that has been set back may have left entries of the future.
func recent(entries []entry, now time.Time) []entry {
	var found []entry
	for _, e := range entries {
		if now.Sub(e.At).Abs() < brakeWindow {
			found = append(found, e)
		}
	}
	return found
}

func countOf(entries []entry) int {
	count := 0
	for _, e := range entries {
		count += e.Count
	}
	return count
}
