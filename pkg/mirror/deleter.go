package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// settleDelay collects deletions, so that the brake sees them together. Some tools also delete a ConfigMap and create
	// it again at once.
	settleDelay = 3 * time.Second
	// sweepInterval is the time until the next sweep if deletions are held or have failed.
	sweepInterval = time.Minute
)

// deleter deletes the copies whose policies the hub lacks. Only run calls its methods, except wake.
type deleter struct {
	*Mirror
	ledger   ledger
	woken    chan struct{}
	accepted map[types.UID]bool // the copies that the token of AcceptDeletions named
	logged   map[string]string  // the last logged text, by message; empty after all is done
	heldAt   time.Time          // when the last held deletions were logged
}

func newDeleter(m *Mirror) *deleter {
	return &deleter{
		Mirror: m, ledger: ledger{m.client, m.options.Namespace},
		woken: make(chan struct{}, 1), accepted: make(map[types.UID]bool), logged: make(map[string]string),
	}
}

// wake makes run sweep after settleDelay.
func (d *deleter) wake() {
	select {
	case d.woken <- struct{}{}:
	default:
	}
}

// run sweeps until ctx ends. The requests of a deletion use requestCtx.
func (d *deleter) run(ctx, requestCtx context.Context) {
	var next <-chan time.Time // nil means never
	for {
		select {
		case <-ctx.Done():
			return
		case <-next:
		case <-d.woken:
			select {
			case <-ctx.Done():
				return
			case <-time.After(settleDelay):
			}
		}
		next = nil
		isDone, err := d.sweep(requestCtx, time.Now().UTC())
		if err != nil {
			d.warnOnce("delete copies failed, retrying", err.Error(), "error", err)
		}
		if err == nil && isDone {
			clear(d.logged)
		} else {
			next = time.After(sweepInterval)
		}
	}
}

// sweep deletes the owed copies, or holds them. isDone is false if it holds any.
func (d *deleter) sweep(ctx context.Context, now time.Time) (isDone bool, err error) {
	owed, copies := d.owed()
	if len(owed) == 0 {
		d.results.held.Set(0)
		return true, nil
	}
	record, entries, err := d.ledger.read(ctx, now)
	if err != nil {
		return false, err
	}
	token := tokenOf(owed)
	if token == d.options.AcceptDeletions {
		for _, l := range owed {
			d.accepted[l.uid] = true
		}
	}
	isAccepted := !slices.ContainsFunc(owed, func(l *local) bool { return !d.accepted[l.uid] })
	deleted := countOf(entries)
	if !isAccepted && !mayDelete(len(owed), copies, deleted) {
		d.results.held.Set(float64(len(owed)))
		// A hub that is emptied step by step gives a new token with each step.
		if d.logged[heldMessage] == "" || time.Since(d.heldAt) >= sweepInterval {
			d.heldAt = time.Now()
			d.warnOnce(heldMessage, token, "owed", len(owed), "copies", copies, "deletedInLastHour", deleted, "token", token,
				"policies", firstOf(owed), "hint", "the hub lacks these policies. If that is right, give --accept-deletions "+token)
		}
		return false, nil
	}
	gone, err := d.confirm(ctx, owed)
	if err != nil || len(gone) == 0 {
		return false, err
	}
	if !isAccepted { // accepted ones do not count
		entries = append(entries, entry{At: now, Count: len(gone)})
		if record, err = d.ledger.write(ctx, record, entries); err != nil {
			return false, err
		}
	}
	count, err := d.deleteAll(ctx, gone)
	if err != nil && !isAccepted {
		entries[len(entries)-1].Count = count
		_, writeErr := d.ledger.write(ctx, record, entries)
		err = errors.Join(err, writeErr)
	}
	if len(gone) == len(owed) {
		d.results.held.Set(0)
	}
	return len(gone) == len(owed), err
}

// owed returns the copies whose policies the current hub lacks, sorted. copies counts all copies from this hub.
func (d *deleter) owed() (owed []*local, copies int) {
	for _, object := range d.locals.List() {
		l, ok := object.(*local)
		if !ok {
			continue
		}
		origin, wanted := d.sources.get(l.key())
		if l.origin == "" || l.origin != origin {
			continue
		}
		copies++
		if wanted == nil {
			owed = append(owed, l)
		}
	}
	slices.SortFunc(owed, func(x, y *local) int { return strings.Compare(x.key().String(), y.key().String()) })
	return owed, copies
}

// confirm asks the hub for each policy, and returns the copies whose policies the hub lacks. If it has one, its list was not
// complete, and is read again.
func (d *deleter) confirm(ctx context.Context, owed []*local) (gone []*local, err error) {
	for _, l := range owed {
		full, err := d.hub.read(ctx, l.key())
		if err != nil {
			return nil, err
		}
		if full == nil {
			gone = append(gone, l)
		}
	}
	if missing := len(owed) - len(gone); missing > 0 {
		d.warnOnce("the list of the hub lacked policies that it has; their copies stay", "missing", "policies", missing)
		d.hub.reloadSoon()
	}
	return gone, nil
}

// deleteAll deletes copies, and returns how many it deleted. It skips those whose policies the hub has again. A copy that
// has changed since it was cached stays until the next sweep.
func (d *deleter) deleteAll(ctx context.Context, gone []*local) (count int, err error) {
	var errs []error
	for _, l := range gone {
		if _, wanted := d.sources.get(l.key()); wanted != nil {
			continue
		}
		err := d.client.CoreV1().ConfigMaps(l.namespace).Delete(ctx, l.name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &l.uid, ResourceVersion: &l.resourceVersion},
		})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("delete the copy %s: %w", l.key(), err))
			continue
		}
		count++
		d.wrote(l.key(), "delete")
	}
	return count, errors.Join(errs...)
}

const heldMessage = "deletions held"

// warnOnce logs a message, unless its last text was the same.
func (d *deleter) warnOnce(message, text string, args ...any) {
	if d.logged[message] != text {
		d.logged[message] = text
		d.log.Warn(message, args...)
	}
}

// firstOf returns the names of the first copies.
func firstOf(owed []*local) string {
	const most = 10
	var names []string
	for _, l := range owed[:min(len(owed), most)] {
		names = append(names, l.key().String())
	}
	if len(owed) > most {
		names = append(names, fmt.Sprintf("and %d more", len(owed)-most))
	}
	return strings.Join(names, ", ")
}
