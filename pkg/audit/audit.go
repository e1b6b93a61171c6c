// Package audit defines the audit trail: one line of JSON for each policy that the webhook admits and for each
// NetworkPolicy that the agent writes or deletes.
package audit

import (
	"encoding/json"
	"io"
	"sync"
	"time"
)

// Event is what happened.
type Event string

// The Events.
const (
	Admitted Event = "admitted" // the webhook allowed a changed policy
	Written  Event = "written"  // the agent created or updated a NetworkPolicy
	Deleted  Event = "deleted"  // the agent deleted a NetworkPolicy
)

// Entry is a line of the audit trail. Its fields keep their names and meanings; later versions may add some. It contains
// no policy.json and no annotation.
type Entry struct {
	Time    time.Time `json:"time"`    // UTC
	Audit   bool      `json:"audit"`   // always true, to find the line in a log
	Program string    `json:"program"` // egress-webhook or egress-agent
	Event   Event     `json:"event"`
	// Namespace and Name are those of the ConfigMap for Admitted, and of the NetworkPolicy otherwise.
	Namespace string `json:"namespace"`
	Name      string `json:"name"`

	// User is who sent the policy, and Groups the number of its groups. Operation is CREATE or UPDATE. All are only for
	// Admitted.
	User      string `json:"user,omitempty"`
	Groups    int    `json:"groups,omitempty"`
	Operation string `json:"operation,omitempty"`
	// OldPolicy and NewPolicy are the SHA-256 of policy.json before and after. OldPolicy is empty if there was none. A
	// Written entry has the NewPolicy that the NetworkPolicy was made from.
	OldPolicy string   `json:"oldPolicy,omitempty"`
	NewPolicy string   `json:"newPolicy,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`

	// Cause is why the agent wrote: Missing, Edited, Policy, Options, Ranges, Guardrails, Expiry or Metadata. Step is
	// whole, widen or narrow. Ranges is the syncToken of AWS's document. EditedBy is the field manager that edited the
	// NetworkPolicy last, for Edited. All are only for Written.
	Cause    string `json:"cause,omitempty"`
	Step     string `json:"step,omitempty"`
	Ranges   string `json:"ranges,omitempty"`
	EditedBy string `json:"editedBy,omitempty"`

	Change
}

// Log writes entries, each as one line. It is safe for concurrent use. A nil Log writes nothing.
type Log struct {
	mu      sync.Mutex
	w       io.Writer
	program string
	now     func() time.Time
}

// NewLog returns a Log that writes the entries of a program to w.
func NewLog(w io.Writer, program string, now func() time.Time) *Log {
	return &Log{w: w, program: program, now: now}
}

const (
	maxText     = 256 // runes of a text from outside
	maxWarnings = 20
)

// Write writes an entry. It sets Time, Audit and Program, and shortens long texts.
func (l *Log) Write(e Entry) {
	if l == nil {
		return
	}
	e.Time, e.Audit, e.Program = l.now().UTC(), true, l.program
	e.User, e.EditedBy = shorten(e.User), shorten(e.EditedBy)
	e.Warnings = e.Warnings[:min(len(e.Warnings), maxWarnings)]
	line, err := json.Marshal(e)
	if err != nil {
		return // an Entry always has a JSON form
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.w.Write(append(line, '\n'))
}

func shorten(text string) string {
	if runes := []rune(text); len(runes) > maxText {
		return string(runes[:maxText-1]) + "…"
	}
	return text
}
