package ranges

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
)

// ConfigMapName is the name of the ConfigMap of ranges, in the agent's namespace. The agent loads the accepted ranges
// from this ConfigMap after a restart, and the webhook mounts it. RangesKey is the key of AWS's ranges, as
// awsranges.Encode returns them. CustomKey is the key of the custom ranges, as awsranges.EncodeCustom returns them.
// Only the agent reads the custom ranges, to hold rows that a file has removed also after a restart. If there are no
// custom ranges, the ConfigMap lacks CustomKey.
const (
	ConfigMapName = "egress-ranges"
	RangesKey     = "ip-ranges.json.gz"
	CustomKey     = "custom-ranges.json.gz"
)

// The annotations on the ConfigMap of ranges. Times are RFC 3339.
const (
	// SyncTokenAnnotation is the syncToken of AWS's document: the time of its publication in epoch seconds.
	SyncTokenAnnotation = "egress-controller/sync-token"
	// AcceptedAnnotation is when the feed accepted that document.
	AcceptedAnnotation = "egress-controller/accepted"
	// ConfirmedAnnotation is when a refresh last found that document current; up to confirmationInterval too early.
	ConfirmedAnnotation = "egress-controller/confirmed"
	// RowsAnnotation is the number of rows in AWS's document, and PairsAnnotation the number of its service-regions.
	RowsAnnotation  = "egress-controller/rows"
	PairsAnnotation = "egress-controller/pairs"
	// HeldAnnotation is the number of held rows.
	HeldAnnotation = "egress-controller/held"
	// RefusedAnnotation is why the feed refused a document after that refresh. It is absent if the feed refused none.
	RefusedAnnotation = "egress-controller/refused"
	// OptionsAnnotation has the netpol.Options.String of the leader. It is absent while the ConfigMap lacks ranges that
	// the leader uses.
	OptionsAnnotation = "egress-controller/agent-options"
)

// maxConfigMapBytes is the size of the largest data that the API server accepts in a ConfigMap, in bytes. The limit of
// a Secret is the same: corev1.MaxSecretSize.
const maxConfigMapBytes = 1 << 20

// confirmationInterval is the time after which the store writes a new ConfirmedAnnotation, even if nothing else
// changed. One write a day shows that an agent still refreshes the ranges, and more writes would only cost requests.
const confirmationInterval = 24 * time.Hour

// acceptedRanges are the ranges in the ConfigMap of ranges. The zero value has no ranges.
type acceptedRanges struct {
	table                   *awsranges.Table // AWS's rows, current and held; may be nil
	custom                  *awsranges.Table // custom rows, current and held; may be nil
	acceptedAt, confirmedAt time.Time        // of AWS's document
	refusedReason           string           // empty if the feed has refused no document after confirmedAt
}

// Store saves ranges in the ConfigMap of ranges, and loads them. It is not safe for concurrent use.
type Store struct {
	client  kubernetes.Interface
	options Options

	aws, custom encodedTable
	lastSeen    *corev1.ConfigMap // the last version that the store has read or written; nil if there is none
}

// encodedTable caches the encoding of a table.
type encodedTable struct {
	table *awsranges.Table
	data  []byte // nil for a nil table
}

// update caches the encoding of a table. isChanged reports whether the cache had another table.
func (e *encodedTable) update(
	table *awsranges.Table, encode func(*awsranges.Table) ([]byte, error),
) (isChanged bool, err error) {
	if e.table == table {
		return false, nil
	}
	var data []byte
	if table != nil {
		if data, err = encode(table); err != nil {
			return false, err
		}
	}
	e.table, e.data = table, data
	return true, nil
}

// load returns the saved ranges; the zero value if the ConfigMap does not exist. It caches the encodings that it reads.
// If one of the two documents is defective, the error wraps an *awsranges.RefusedError, and the result has only the
// other document.
func (s *Store) load(ctx context.Context) (acceptedRanges, error) {
	configMap, err := s.client.CoreV1().ConfigMaps(s.options.Namespace).Get(ctx, ConfigMapName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return acceptedRanges{}, nil
	}
	if err != nil {
		return acceptedRanges{}, err
	}
	s.lastSeen = configMap
	r := acceptedRanges{refusedReason: configMap.Annotations[RefusedAnnotation]}
	// A time that does not parse becomes the zero time.
	r.acceptedAt, _ = time.Parse(time.RFC3339, configMap.Annotations[AcceptedAnnotation])
	r.confirmedAt, _ = time.Parse(time.RFC3339, configMap.Annotations[ConfirmedAnnotation])
	var errs []error
	if data, ok := configMap.BinaryData[CustomKey]; ok {
		if r.custom, err = awsranges.DecodeCustom(data); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", CustomKey, err))
		} else {
			s.custom = encodedTable{r.custom, data}
		}
	}
	if data, ok := configMap.BinaryData[RangesKey]; ok || r.custom == nil {
		if r.table, err = awsranges.Read(bytes.NewReader(data)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", RangesKey, err))
		} else {
			s.aws = encodedTable{r.table, data}
		}
	}
	return r, errors.Join(errs...)
}

// save writes r unless the ConfigMap already holds it, and returns the size of the data in bytes. Labels and
// annotations of others stay. save leaves out the custom ranges if they do not fit beside AWS's ranges.
func (s *Store) save(ctx context.Context, r acceptedRanges) (size int, err error) {
	isChanged, err := s.aws.update(r.table, awsranges.Encode)
	if err != nil {
		return 0, err
	}
	isCustomChanged, err := s.custom.update(r.custom, awsranges.EncodeCustom)
	if err != nil {
		return 0, err
	}
	size = len(s.aws.data)
	if s.customFits() {
		size += len(s.custom.data)
	}
	if (isChanged || isCustomChanged) && s.lastSeen != nil {
		// The data has changed, so a write is necessary, and reading the ConfigMap first would be a needless request.
		err = s.update(ctx, s.lastSeen, r)
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return size, err
		}
	}
	return size, s.compareAndWrite(ctx, r)
}

// customFits reports whether the custom ranges fit into the ConfigMap beside AWS's ranges. It returns true if there are
// no custom ranges.
func (s *Store) customFits() bool {
	return s.custom.data == nil || len(s.aws.data)+len(s.custom.data) <= maxConfigMapBytes
}

// compareAndWrite reads the ConfigMap, and creates or updates it if it does not hold r.
func (s *Store) compareAndWrite(ctx context.Context, r acceptedRanges) error {
	configMaps := s.client.CoreV1().ConfigMaps(s.options.Namespace)
	current, err := configMaps.Get(ctx, ConfigMapName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		metadata := metav1.ObjectMeta{Namespace: s.options.Namespace, Name: ConfigMapName}
		desired := s.withRanges(&corev1.ConfigMap{ObjectMeta: metadata}, r)
		created, err := configMaps.Create(ctx, desired, metav1.CreateOptions{FieldManager: s.options.FieldManager})
		if err == nil {
			s.lastSeen = created
		}
		return err
	}
	if err != nil {
		return err
	}
	s.lastSeen = current
	if s.isCurrent(current, r) {
		return nil
	}
	return s.update(ctx, current, r)
}

// update writes r over current. It returns a conflict error if the API server has another version of the ConfigMap.
func (s *Store) update(ctx context.Context, current *corev1.ConfigMap, r acceptedRanges) error {
	updated, err := s.client.CoreV1().ConfigMaps(s.options.Namespace).Update(
		ctx, s.withRanges(current, r), metav1.UpdateOptions{FieldManager: s.options.FieldManager})
	if err == nil {
		s.lastSeen = updated
	}
	return err
}

// isCurrent reports whether the ConfigMap needs no write. If only confirmedAt is newer, the ConfigMap needs a write
// only after confirmationInterval.
func (s *Store) isCurrent(current *corev1.ConfigMap, r acceptedRanges) bool {
	savedConfirmedAt, err := time.Parse(time.RFC3339, current.Annotations[ConfirmedAnnotation])
	if err == nil && r.confirmedAt.Sub(savedConfirmedAt).Abs() < confirmationInterval {
		r.confirmedAt = savedConfirmedAt
	}
	desired := s.withRanges(current, r)
	return maps.Equal(desired.Annotations, current.Annotations) && maps.Equal(desired.Labels, current.Labels) &&
		len(current.Data) == 0 && maps.EqualFunc(desired.BinaryData, current.BinaryData, bytes.Equal)
}

// withRanges returns a copy of current with the data, annotations and label that the agent owns.
func (s *Store) withRanges(current *corev1.ConfigMap, r acceptedRanges) *corev1.ConfigMap {
	desired := current.DeepCopy()
	if desired.Labels == nil {
		desired.Labels = make(map[string]string)
	}
	desired.Labels[netpol.ManagedByLabel] = netpol.ManagedBy
	if desired.Annotations == nil {
		desired.Annotations = make(map[string]string)
	}
	desired.Data, desired.BinaryData = nil, make(map[string][]byte)
	desired.Annotations[OptionsAnnotation] = s.options.AgentOptions
	if s.custom.data != nil {
		if s.customFits() {
			desired.BinaryData[CustomKey] = s.custom.data
		} else {
			delete(desired.Annotations, OptionsAnnotation)
		}
	}
	if r.table == nil {
		if data, ok := current.BinaryData[RangesKey]; ok {
			desired.BinaryData[RangesKey] = data // the agent does not use this data, but the webhook may
		}
		return desired
	}
	desired.BinaryData[RangesKey] = s.aws.data
	heldCount := len(r.table.Held())
	maps.Copy(desired.Annotations, map[string]string{
		SyncTokenAnnotation: r.table.SyncToken(),
		AcceptedAnnotation:  r.acceptedAt.UTC().Format(time.RFC3339),
		ConfirmedAnnotation: r.confirmedAt.UTC().Format(time.RFC3339),
		RowsAnnotation:      strconv.Itoa(len(r.table.Rows()) - heldCount),
		PairsAnnotation:     strconv.Itoa(r.table.ServiceRegionCount()),
		HeldAnnotation:      strconv.Itoa(heldCount),
	})
	delete(desired.Annotations, RefusedAnnotation)
	if r.refusedReason != "" {
		desired.Annotations[RefusedAnnotation] = r.refusedReason
	}
	return desired
}
