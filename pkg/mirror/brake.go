package mirror

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// brakeWindow is the time in which the brake adds up deletions: also many small ones may not exceed a fifth.
const brakeWindow = time.Hour

// mayDelete is the brake: it reports whether the mirror may delete the owed copies. copies counts all copies, with the
// owed ones. deleted counts the deletions within brakeWindow. Owed and deleted copies together may be a fifth of the
// copies at the start of brakeWindow, or one copy.
func mayDelete(owed, copies, deleted int) bool {
	return owed+deleted <= max(1, (copies+deleted)/5)
}

// tokenLength is the length of a token of --accept-deletions.
const tokenLength = 12

// tokenOf returns the token that accepts the deletion of exactly these copies. owed is sorted. A copy that is made again
// has another UID, so it needs another token.
func tokenOf(owed []*local) string {
	hash := sha256.New()
	for _, l := range owed {
		fmt.Fprintf(hash, "%s/%s %s %s\n", l.namespace, l.name, l.uid, l.origin)
	}
	return hex.EncodeToString(hash.Sum(nil))[:tokenLength]
}

// IsToken reports whether text has the form of a token.
func IsToken(text string) bool {
	data, err := hex.DecodeString(text)
	return err == nil && hex.EncodeToString(data) == text && len(text) == tokenLength
}
