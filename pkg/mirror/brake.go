package mirror

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// brakeWindow is the time in which the brake adds up deletions: also many small ones may not exceed a fifth.
const brakeWindow = time.Hour

// mayDelete is the brake. It reports whether the mirror may delete the owed copies, whose policies the hub lacks. copies
// is the number of copies, the owed ones included, and deleted the number that the mirror deleted within brakeWindow.
// Together they may be a fifth of the copies that there were, or a single one, and so never all of several.
func mayDelete(owed, copies, deleted int) bool {
	return owed+deleted <= max(1, (copies+deleted)/5)
}

// tokenLength is the length of a token of --accept-deletions.
const tokenLength = 12

// tokenOf returns the token that accepts the deletion of exactly these copies, which are sorted. A copy that is made
// again has another UID, so it needs another token.
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
