package controller

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"egress-agent/pkg/agent/internal/governance"
	"egress-agent/pkg/agent/internal/plan"
	"egress-agent/pkg/agent/internal/reporter"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/platform"
)

// snapshotInterval is the least time between two writes of the snapshot. Namespaces may change many times a second, and a
// kubelet takes a minute to bring a ConfigMap to the webhook anyway.
const snapshotInterval = 2 * time.Second

// snapshotRetry is the time after which a request that has failed is repeated.
const snapshotRetry = 5 * time.Second

// snapshots saves the documents in force and the documents of each namespace in a ConfigMap. The webhook mounts it, and
// a new leader reads it.
type snapshots struct {
	client     kubernetes.Interface
	namespace  string
	governance *governance.Governance
	checkLease func() error
	reporter   *reporter.Reporter
	dirty      chan struct{} // has a value if something may have changed

	// stored is the content of the ConfigMap when it was last read or written, at storedAt. It is not nil after that.
	stored   *platform.Snapshot
	storedAt time.Time
}

// snapshotCheck is the time after which save reads the ConfigMap again, even if the content has not changed: somebody may
// have edited or deleted it.
const snapshotCheck = 10 * time.Minute

func newSnapshots(
	client kubernetes.Interface, namespace string, governance *governance.Governance, checkLease func() error, reporter *reporter.Reporter,
) *snapshots {
	return &snapshots{
		client: client, namespace: namespace, governance: governance, checkLease: checkLease, reporter: reporter, dirty: make(chan struct{}, 1),
	}
}

// changed makes run compare the snapshot with the ConfigMap.
func (s *snapshots) changed() {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

// load returns the saved snapshot; the zero value without one. It retries while the API server fails, until ctx
// ends. A defective snapshot counts as none.
func (s *snapshots) load(ctx context.Context) platform.Snapshot {
	for {
		_, snapshot, err := s.read(ctx)
		if err == nil || ctx.Err() != nil {
			return snapshot
		}
		s.reporter.SnapshotFailed("load", err)
		wait(ctx, snapshotRetry/4)
	}
}

// read returns the ConfigMap and its snapshot. The ConfigMap is nil if it does not exist.
func (s *snapshots) read(ctx context.Context) (*corev1.ConfigMap, platform.Snapshot, error) {
	configMap, err := s.client.CoreV1().ConfigMaps(s.namespace).Get(ctx, platform.SnapshotName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, platform.Snapshot{}, nil
	}
	if err != nil {
		return nil, platform.Snapshot{}, err
	}
	snapshot, err := platform.DecodeSnapshot(configMap.BinaryData[platform.SnapshotKey])
	if err != nil {
		return configMap, platform.Snapshot{}, nil // save replaces a defective snapshot
	}
	return configMap, snapshot, nil
}

// run saves the snapshot after each change, until ctx ends, and calls count before. Its requests use requestCtx.
func (s *snapshots) run(ctx, requestCtx context.Context, count func()) {
	s.changed()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.dirty:
		case <-time.After(snapshotCheck):
		}
		count()
		if err := s.save(requestCtx); err != nil && ctx.Err() == nil {
			s.reporter.SnapshotFailed("save", err)
			s.changed()
			wait(ctx, snapshotRetry)
			continue
		}
		wait(ctx, snapshotInterval)
	}
}

// save writes the snapshot unless the ConfigMap already has it. Without a document it creates no ConfigMap.
func (s *snapshots) save(ctx context.Context) error {
	snapshot := s.governance.Snapshot()
	if s.stored != nil && time.Since(s.storedAt) < snapshotCheck && isEqual(snapshot, *s.stored) {
		return nil
	}
	stored, saved, err := s.read(ctx)
	if err != nil {
		return err
	}
	s.stored, s.storedAt = &saved, time.Now()
	if stored == nil && len(snapshot.Documents) == 0 {
		return nil
	}
	snapshot.Changed = saved.Changed
	if stored != nil && saved.Changed != 0 && isEqual(snapshot, saved) {
		s.reporter.SnapshotKept(saved.Changed)
		return nil
	}
	snapshot.Changed = time.Now().Unix()
	data, err := platform.EncodeSnapshot(snapshot)
	if err != nil {
		return err
	}
	if err := s.checkLease(); err != nil {
		return err
	}
	if err := s.write(ctx, stored, data); err != nil {
		return err
	}
	s.stored = &snapshot
	s.reporter.SnapshotSaved(snapshot.Changed, len(data))
	return nil
}

func isEqual(a, b platform.Snapshot) bool {
	return maps.EqualFunc(a.Documents, b.Documents, func(x, y json.RawMessage) bool { return string(x) == string(y) }) &&
		maps.EqualFunc(a.Namespaces, b.Namespaces, slices.Equal)
}

// write creates the ConfigMap, or replaces its data. Labels and annotations of others stay.
func (s *snapshots) write(ctx context.Context, stored *corev1.ConfigMap, data []byte) error {
	configMaps := s.client.CoreV1().ConfigMaps(s.namespace)
	if stored == nil {
		_, err := configMaps.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: s.namespace, Name: platform.SnapshotName, Labels: map[string]string{netpol.ManagedByLabel: netpol.ManagedBy},
			},
			BinaryData: map[string][]byte{platform.SnapshotKey: data},
		}, metav1.CreateOptions{FieldManager: plan.AgentName})
		return err
	}
	desired := stored.DeepCopy()
	if desired.Labels == nil {
		desired.Labels = make(map[string]string)
	}
	desired.Labels[netpol.ManagedByLabel] = netpol.ManagedBy
	desired.Data, desired.BinaryData = nil, map[string][]byte{platform.SnapshotKey: data}
	_, err := configMaps.Update(ctx, desired, metav1.UpdateOptions{FieldManager: plan.AgentName})
	return err
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
