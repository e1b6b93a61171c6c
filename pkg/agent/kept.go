package agent

import (
	"bytes"
	"context"
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
// awsranges.Encode gives it.
const (
	RangesName = "egress-ranges"
	RangesKey  = "ip-ranges.json.gz"
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
)

// largestConfigMap is what the API server takes, in bytes (corev1.MaxSecretSize is the same for a Secret).
const largestConfigMap = 1 << 20

// confirmedWithin is how much older than the truth ConfirmedAnnotation may be: a write says when nothing
// changes, too, that somebody still looks.
const confirmedWithin = 24 * time.Hour

// keptRanges is what the ConfigMap of ranges keeps. The zero value is none.
type keptRanges struct {
	table               *awsranges.Table // AWS's rows, and those held; no custom ones
	accepted, confirmed time.Time
	refused             string // empty for no refusal since
}

// store keeps ranges in the cluster.
type store struct {
	client    kubernetes.Interface
	namespace string

	encodedOf *awsranges.Table // what encoded is made from
	encoded   []byte
	last      *corev1.ConfigMap // as last seen; nil before
}

// read returns what is kept, and the zero value where nothing is. What is read need not be encoded again.
func (s *store) read(ctx context.Context) (keptRanges, error) {
	configMap, err := s.client.CoreV1().ConfigMaps(s.namespace).Get(ctx, RangesName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return keptRanges{}, nil
	}
	if err != nil {
		return keptRanges{}, err
	}
	table, err := awsranges.Read(bytes.NewReader(configMap.BinaryData[RangesKey]))
	if err != nil {
		return keptRanges{}, fmt.Errorf("%s: %w", RangesKey, err)
	}
	s.encodedOf, s.encoded, s.last = table, configMap.BinaryData[RangesKey], configMap
	r := keptRanges{table: table, refused: configMap.Annotations[RefusedAnnotation]}
	// Times that cannot be read are long ago.
	r.accepted, _ = time.Parse(time.RFC3339, configMap.Annotations[AcceptedAnnotation])
	r.confirmed, _ = time.Parse(time.RFC3339, configMap.Annotations[ConfirmedAnnotation])
	return r, nil
}

// keep makes the ConfigMap what it is to be, with no write where it is, and returns the bytes of its data.
// Labels and annotations of others stay.
func (s *store) keep(ctx context.Context, r keptRanges) (size int, err error) {
	changed := s.encodedOf != r.table
	if changed {
		if s.encoded, err = awsranges.Encode(r.table); err != nil {
			return 0, err
		}
		s.encodedOf = r.table
	}
	if changed && s.last != nil {
		// It is not as it is to be, whatever it is: no need to look first.
		err = s.update(ctx, s.last, r)
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return len(s.encoded), err
		}
	}
	return len(s.encoded), s.compareAndWrite(ctx, r)
}

func (s *store) compareAndWrite(ctx context.Context, r keptRanges) error {
	configMaps := s.client.CoreV1().ConfigMaps(s.namespace)
	current, err := configMaps.Get(ctx, RangesName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		desired := s.overlaid(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: RangesName}}, r)
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
	if s.isKept(current, r) {
		return nil
	}
	return s.update(ctx, current, r)
}

// update writes over a version of the ConfigMap, and fails where that is not the latest.
func (s *store) update(ctx context.Context, current *corev1.ConfigMap, r keptRanges) error {
	updated, err := s.client.CoreV1().ConfigMaps(s.namespace).Update(ctx, s.overlaid(current, r), metav1.UpdateOptions{FieldManager: Name})
	if err == nil {
		s.last = updated
	}
	return err
}

// isKept says whether nothing needs to be written. That the ranges were confirmed again does not, until
// what the ConfigMap says of it is too old.
func (s *store) isKept(current *corev1.ConfigMap, r keptRanges) bool {
	confirmed, err := time.Parse(time.RFC3339, current.Annotations[ConfirmedAnnotation])
	if err == nil && r.confirmed.Sub(confirmed).Abs() < confirmedWithin {
		r.confirmed = confirmed
	}
	desired := s.overlaid(current, r)
	return maps.Equal(desired.Annotations, current.Annotations) && maps.Equal(desired.Labels, current.Labels) &&
		len(current.Data) == 0 && maps.EqualFunc(desired.BinaryData, current.BinaryData, bytes.Equal)
}

// overlaid returns current with all that the agent answers for.
func (s *store) overlaid(current *corev1.ConfigMap, r keptRanges) *corev1.ConfigMap {
	overlaid := current.DeepCopy()
	if overlaid.Labels == nil {
		overlaid.Labels = make(map[string]string)
	}
	overlaid.Labels[netpol.ManagedByLabel] = netpol.ManagedBy
	if overlaid.Annotations == nil {
		overlaid.Annotations = make(map[string]string)
	}
	held := len(r.table.Held())
	maps.Copy(overlaid.Annotations, map[string]string{
		SyncTokenAnnotation: r.table.SyncToken(),
		AcceptedAnnotation:  r.accepted.UTC().Format(time.RFC3339),
		ConfirmedAnnotation: r.confirmed.UTC().Format(time.RFC3339),
		RowsAnnotation:      strconv.Itoa(len(r.table.Rows()) - held),
		PairsAnnotation:     strconv.Itoa(r.table.Pairs()),
		HeldAnnotation:      strconv.Itoa(held),
	})
	delete(overlaid.Annotations, RefusedAnnotation)
	if r.refused != "" {
		overlaid.Annotations[RefusedAnnotation] = r.refused
	}
	overlaid.Data = nil
	overlaid.BinaryData = map[string][]byte{RangesKey: s.encoded}
	return overlaid
}
