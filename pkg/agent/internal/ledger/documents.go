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
	// MaxBytes limits the policy documents of a namespace, and also their text in the cache. So one namespace costs the
	// agent about a mebibyte, and a kilobyte for each object.
	MaxBytes = 1 << 20
	// minDocumentBytes is what even a shorter document counts as.
	minDocumentBytes = 256
)

// documents counts the policy documents of a namespace.
type documents struct {
	byName    map[string]document // by the ConfigMap's name
	bytes     int                 // sum over all documents
	textBytes int                 // sum over the texts in the cache
	excluded  map[string]bool     // names of the documents that do not fit; nil until a caller needs them
}

type document struct {
	uid     types.UID
	created int64 // epoch seconds
	size    int   // bytes without white space
	text    int   // bytes that the cache holds
}

// bytes returns the size that counts; 0 for the zero document.
func (d document) bytes() int {
	if d == (document{}) {
		return 0
	}
	return max(d.size, minDocumentBytes)
}

// add counts a document, in place of the previous one with this name, and reports whether the cache may hold its text.
func (ds *documents) add(name string, d document) (mayHold bool) {
	previous := ds.byName[name]
	mayHold = d.size <= policy.MaxDocumentBytes && d.text <= policy.MaxDocumentBytes && ds.textBytes-previous.text+d.text <= MaxBytes
	if !mayHold {
		d.text = 0
	}
	if ds.byName == nil {
		ds.byName = make(map[string]document, 1)
	}
	ds.byName[name] = d
	ds.bytes += d.bytes() - previous.bytes()
	ds.textBytes += d.text - previous.text
	ds.excluded = nil
	return mayHold
}

func (ds *documents) drop(name string, uid types.UID) {
	if d, exists := ds.byName[name]; exists && d.uid == uid {
		delete(ds.byName, name)
		ds.bytes -= d.bytes()
		ds.textBytes -= d.text
		ds.excluded = nil
	}
}

func (ds *documents) excess(name string) policy.Problems {
	if ds.bytes <= MaxBytes {
		return nil
	}
	if ds.excluded == nil {
		ds.excluded = ds.youngest()
	}
	if !ds.excluded[name] {
		return nil
	}
	return policy.Problems{{Path: policy.Key, Message: fmt.Sprintf(
		"Too many policies: the policies of the namespace have %d bytes together, and each counts as at least %d; at most %d are allowed, so only the oldest are applied; remove some",
		ds.bytes, minDocumentBytes, MaxBytes)}}
}

// youngest returns the names of the documents that do not fit into MaxBytes beside older ones.
func (ds *documents) youngest() map[string]bool {
	names := make([]string, 0, len(ds.byName))
	for name := range ds.byName {
		names = append(names, name)
	}
	slices.SortFunc(names, func(x, y string) int {
		return cmp.Or(cmp.Compare(ds.byName[x].created, ds.byName[y].created), strings.Compare(x, y))
	})
	excluded, total := make(map[string]bool), 0
	for _, name := range names {
		if size := ds.byName[name].bytes(); total+size <= MaxBytes {
			total += size
		} else {
			excluded[name] = true
		}
	}
	return excluded
}
