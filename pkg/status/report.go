package status

import (
	"strconv"
	"time"

	"egress-agent/pkg/awsranges"
)

// Report is the state of a cluster's policies at one time. Its JSON form is the output of
// "egress-agent status -o json".
type Report struct {
	Cluster  string    `json:"cluster"` // the URL of the API server
	MadeAt   time.Time `json:"made"`
	Ranges   *Ranges   `json:"ranges"`   // nil if unknown
	Policies []Policy  `json:"policies"` // sorted by namespace and name; never nil
	// Traffic has the namespaces with policies, those with the most denied destinations first; nil before AddTraffic.
	Traffic []Traffic `json:"traffic,omitempty"`
}

// Ranges describes the AWS ranges that the policies use.
type Ranges struct {
	Source     string     `json:"source"` // the name of the file or the ConfigMap that has the ranges
	SyncToken  string     `json:"syncToken"`
	Published  time.Time  `json:"published"`
	Confirmed  *time.Time `json:"confirmed"` // when the agent last confirmed the ranges as the latest; nil for a file
	AgeSeconds int64      `json:"ageSeconds"`
	Held       int        `json:"held"`    // the number of prefixes that AWS removed and that stay allowed for a time
	Refused    string     `json:"refused"` // why the agent refused a later document; empty if it refused none
}

// NewReport returns the report of a cluster. server is the URL of the API server. ranges may be nil. NewReport copies
// ranges and sets AgeSeconds in the copy.
func NewReport(server string, madeAt time.Time, ranges *Ranges, cluster Cluster) *Report {
	cluster.Now = madeAt
	report := &Report{Cluster: server, MadeAt: madeAt, Policies: Policies(cluster)}
	if ranges != nil {
		withAge := *ranges
		withAge.setAge(madeAt)
		report.Ranges = &withAge
	}
	return report
}

// NewRanges describes the ranges of a table. source is the name of the file or the ConfigMap that has the ranges. AWS's
// syncToken is the time of publication, in seconds since 1970. If it is not a number, Published stays zero.
func NewRanges(source string, table *awsranges.Table) *Ranges {
	ranges := &Ranges{Source: source, SyncToken: table.SyncToken(), Held: len(table.Held())}
	if seconds, err := strconv.ParseInt(ranges.SyncToken, 10, 64); err == nil {
		ranges.Published = time.Unix(seconds, 0).UTC()
	}
	return ranges
}

// setAge sets AgeSeconds to the time since Confirmed or, for a file, since Published. It sets 0 if now is earlier,
// because a clock is wrong.
func (r *Ranges) setAge(now time.Time) {
	since := r.Published
	if r.Confirmed != nil {
		since = *r.Confirmed
	}
	r.AgeSeconds = int64(max(now.Sub(since), 0) / time.Second)
}

// Age returns the age of the ranges at the time of the report.
func (r *Ranges) Age() time.Duration { return time.Duration(r.AgeSeconds) * time.Second }

// FormatPortSlots returns the used port slots and the limit, such as "3/24". If there is no limit, it returns only the
// used port slots.
func (p *Policy) FormatPortSlots() string {
	used := strconv.Itoa(p.PortSlots)
	if p.MaxPortSlots == 0 {
		return used
	}
	return used + "/" + strconv.Itoa(p.MaxPortSlots)
}
