package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"egress-agent/pkg/policy"
)

const (
	// MaxBytes limits the sum of the policy documents of a namespace, and also the sum of their text in the cache. One
	// namespace therefore takes about a mebibyte of the agent's memory, and about a kilobyte for each object.
	MaxBytes = 1 << 20
	// minDocumentBytes is the size that counts for a shorter document.
	minDocumentBytes = 256
)

// documents counts the policy documents of a namespace.
type documents struct {
	byName      map[string]document // by the ConfigMap's name
	bytes       int                 // sum over all documents
	cachedBytes int                 // sum over the texts in the cache
	excluded    map[string]bool     // result of excludedNames; nil if it must be computed again
}

type document struct {
	uid        types.UID
	created    int64 // epoch seconds
	size       int   // of the document without white space, in bytes
	cachedSize int   // of the text in the cache, in bytes
}

// countedSize returns the size that counts, in bytes; 0 for the zero document.
func (d document) countedSize() int {
	if d == (document{}) {
		return 0
	}
	return max(d.size, minDocumentBytes)
}

// add counts a document in place of the previous document with this name. mayCache reports whether the cache may hold
// the text of the document.
func (ds *documents) add(name string, d document) (mayCache bool) {
	previous := ds.byName[name]
	mayCache = d.size <= policy.MaxDocumentBytes && d.cachedSize <= policy.MaxDocumentBytes &&
		ds.cachedBytes-previous.cachedSize+d.cachedSize <= MaxBytes
	if !mayCache {
		d.cachedSize = 0
	}
	if ds.byName == nil {
		ds.byName = make(map[string]document, 1)
	}
	ds.byName[name] = d
	ds.bytes += d.countedSize() - previous.countedSize()
	ds.cachedBytes += d.cachedSize - previous.cachedSize
	ds.excluded = nil
	return mayCache
}

// drop removes the document with this name if it has this UID.
func (ds *documents) drop(name string, uid types.UID) {
	if d, exists := ds.byName[name]; exists && d.uid == uid {
		delete(ds.byName, name)
		ds.bytes -= d.countedSize()
		ds.cachedBytes -= d.cachedSize
		ds.excluded = nil
	}
}

// checkFit returns the result of Ledger.CheckFit.
func (ds *documents) checkFit(name string) policy.Problems {
	if ds.bytes <= MaxBytes {
		return nil
	}
	if ds.excluded == nil {
		ds.excluded = ds.excludedNames()
	}
	if !ds.excluded[name] {
		return nil
	}
	return policy.Problems{{Path: policy.Key, Message: fmt.Sprintf(
		"Too many policies: the policies of the namespace have %d bytes together, and each counts as at least %d; "+
			"at most %d are allowed, so only the oldest are applied; remove some",
		ds.bytes, minDocumentBytes, MaxBytes)}}
}

// excludedNames returns the names of the documents that do not fit. The oldest document comes first: each document fits
// if it and the earlier documents that fit have at most MaxBytes. Documents of the same second have the order of their
// names.
func (ds *documents) excludedNames() map[string]bool {
	names := make([]string, 0, len(ds.byName))
	for name := range ds.byName {
		names = append(names, name)
	}
	slices.SortFunc(names, func(x, y string) int {
		return cmp.Or(cmp.Compare(ds.byName[x].created, ds.byName[y].created), strings.Compare(x, y))
	})
	excluded, total := make(map[string]bool), 0
	for _, name := range names {
		if size := ds.byName[name].countedSize(); total+size <= MaxBytes {
			total += size
		} else {
			excluded[name] = true
		}
	}
	return excluded
}
