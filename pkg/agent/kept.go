package agent

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

// RangesName is the name of the ConfigMap, in the agent's namespace, that keeps the accepted ranges over
// a restart and passes them to the webhook, which mounts it; RangesKey is that of the document in it, as
// awsranges.Encode gives it. CustomKey is that of the custom ranges, as awsranges.EncodeCustom gives them, which
// only the agent reads: what a file no longer has is held over a restart, too. It is absent where there are none.
const (
	RangesName = "egress-ranges"
	RangesKey  = "ip-ranges.json.gz"
	CustomKey  = "custom-ranges.json.gz"
)

// The annotations on the ConfigMap of ranges. Times are RFC 3339.
const (
	SyncTokenAnnotation = "egress-controller/sync-token" // of AWS's document, its publication in epoch seconds
	AcceptedAnnotation  = "egress-controller/accepted"   // when that document was put in use
	ConfirmedAnnotation = "egress-controller/confirmed"  // when it was last found to be AWS's latest, to a day
	RowsAnnotation      = "egress-controller/rows"       // how many prefixes AWS publishes
	PairsAnnotation     = "egress-controller/pairs"      // in how many (service, region)
	HeldAnnotation      = "egress-controller/held"       // how many prefixes AWS has removed are still in use
	RefusedAnnotation   = "egress-controller/refused"    // why a document was refused since; absent where none was
	// OptionsAnnotation is netpol.Options.String of the leader; absent while the ConfigMap lacks ranges that it uses.
	OptionsAnnotation = "egress-controller/agent-options"
)

// largestConfigMap is what the API server takes, in bytes (corev1.MaxSecretSize is the same for a Secret).
const largestConfigMap = 1 << 20

// confirmedWithin is how much older than the truth ConfirmedAnnotation may be: a write says when nothing
// changes, too, that somebody still looks.
const confirmedWithin = 24 * time.Hour

// acceptedRanges is what the ConfigMap of ranges keeps. The zero value is none.
type acceptedRanges struct {
	table                   *awsranges.Table // AWS's rows, and those held; no custom ones; nil for none yet
	custom                  *awsranges.Table // the custom ones, and those held; nil for none
	acceptedAt, confirmedAt time.Time
	refusedReason           string // empty for no refusal since
}

// rangesStore keeps ranges in the cluster.
type rangesStore struct {
	client    kubernetes.Interface
	namespace string
	options   string // for OptionsAnnotation

	aws, custom encodedTable
	last        *corev1.ConfigMap // as last seen; nil before
}

// encodedTable remembers how a table is encoded.
type encodedTable struct {
	of   *awsranges.Table
	data []byte // nil for no table
}

// encode changes what is remembered, where it is of another table.
func (e *encodedTable) encode(table *awsranges.Table, encode func(*awsranges.Table) ([]byte, error)) (changed bool, err error) {
	if e.of == table {
		return false, nil
	}
	var data []byte
	if table != nil {
		if data, err = encode(table); err != nil {
			return false, err
		}
	}
	e.of, e.data = table, data
	return true, nil
}

// load returns what is kept, and the zero value where nothing is. What is read need not be encoded again. An
// error that is a *awsranges.Refusal is about one of the documents, and leaves the other as it was read.
func (s *rangesStore) load(ctx context.Context) (acceptedRanges, error) {
	configMap, err := s.client.CoreV1().ConfigMaps(s.namespace).Get(ctx, RangesName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return acceptedRanges{}, nil
	}
	if err != nil {
		return acceptedRanges{}, err
	}
	s.last = configMap
	r := acceptedRanges{refusedReason: configMap.Annotations[RefusedAnnotation]}
	// Times that cannot be read are long ago.
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

// save makes the ConfigMap what it is to be, with no write where it is, and returns the bytes of its data.
// Labels and annotations of others stay. The custom ranges are left out where they do not fit beside AWS's.
func (s *rangesStore) save(ctx context.Context, r acceptedRanges) (size int, err error) {
	changed, err := s.aws.encode(r.table, awsranges.Encode)
	if err != nil {
		return 0, err
	}
	customChanged, err := s.custom.encode(r.custom, awsranges.EncodeCustom)
	if err != nil {
		return 0, err
	}
	size = len(s.aws.data)
	if s.customFits() {
		size += len(s.custom.data)
	}
	if (changed || customChanged) && s.last != nil {
		// It is not as it is to be, whatever it is: no need to look first.
		err = s.update(ctx, s.last, r)
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return size, err
		}
	}
	return size, s.compareAndWrite(ctx, r)
}

// customFits says whether there is room for the custom ranges, if there are any.
func (s *rangesStore) customFits() bool {
	return s.custom.data == nil || len(s.aws.data)+len(s.custom.data) <= largestConfigMap
}

func (s *rangesStore) compareAndWrite(ctx context.Context, r acceptedRanges) error {
	configMaps := s.client.CoreV1().ConfigMaps(s.namespace)
	current, err := configMaps.Get(ctx, RangesName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		desired := s.withRanges(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: RangesName}}, r)
		created, err := configMaps.Create(ctx, desired, metav1.CreateOptions{FieldManager: Name})
		if err == nil {
			s.last = created
		}
		return err
	}
	if err != nil {
		return err
	}
	s.last = current
	if s.isCurrent(current, r) {
		return nil
	}
	return s.update(ctx, current, r)
}

// update writes over a version of the ConfigMap, and fails where that is not the latest.
func (s *rangesStore) update(ctx context.Context, current *corev1.ConfigMap, r acceptedRanges) error {
	updated, err := s.client.CoreV1().ConfigMaps(s.namespace).Update(ctx, s.withRanges(current, r), metav1.UpdateOptions{FieldManager: Name})
	if err == nil {
		s.last = updated
	}
	return err
}

// isCurrent says whether nothing needs to be written. That the ranges were confirmed again does not, until
// what the ConfigMap says of it is too old.
func (s *rangesStore) isCurrent(current *corev1.ConfigMap, r acceptedRanges) bool {
	confirmed, err := time.Parse(time.RFC3339, current.Annotations[ConfirmedAnnotation])
	if err == nil && r.confirmedAt.Sub(confirmed).Abs() < confirmedWithin {
		r.confirmedAt = confirmed
	}
	desired := s.withRanges(current, r)
	return maps.Equal(desired.Annotations, current.Annotations) && maps.Equal(desired.Labels, current.Labels) &&
		len(current.Data) == 0 && maps.EqualFunc(desired.BinaryData, current.BinaryData, bytes.Equal)
}

// withRanges returns current with all that the agent answers for.
func (s *rangesStore) withRanges(current *corev1.ConfigMap, r acceptedRanges) *corev1.ConfigMap {
	overlaid := current.DeepCopy()
	if overlaid.Labels == nil {
		overlaid.Labels = make(map[string]string)
	}
	overlaid.Labels[netpol.ManagedByLabel] = netpol.ManagedBy
	if overlaid.Annotations == nil {
		overlaid.Annotations = make(map[string]string)
	}
	overlaid.Data, overlaid.BinaryData = nil, make(map[string][]byte)
	overlaid.Annotations[OptionsAnnotation] = s.options
	if s.custom.data != nil {
		if s.customFits() {
			overlaid.BinaryData[CustomKey] = s.custom.data
		} else {
			delete(overlaid.Annotations, OptionsAnnotation)
		}
	}
	if r.table == nil {
		if data, ok := current.BinaryData[RangesKey]; ok {
			overlaid.BinaryData[RangesKey] = data // which is not used here; the webhook may
		}
		return overlaid
	}
	overlaid.BinaryData[RangesKey] = s.aws.data
	held := len(r.table.Held())
	maps.Copy(overlaid.Annotations, map[string]string{
		SyncTokenAnnotation: r.table.SyncToken(),
		AcceptedAnnotation:  r.acceptedAt.UTC().Format(time.RFC3339),
		ConfirmedAnnotation: r.confirmedAt.UTC().Format(time.RFC3339),
		RowsAnnotation:      strconv.Itoa(len(r.table.Rows()) - held),
		PairsAnnotation:     strconv.Itoa(r.table.ServiceRegionCount()),
		HeldAnnotation:      strconv.Itoa(held),
	})
	delete(overlaid.Annotations, RefusedAnnotation)
	if r.refusedReason != "" {
		overlaid.Annotations[RefusedAnnotation] = r.refusedReason
	}
	return overlaid
}
