package netpol

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"egress-agent/pkg/policy"
)

// Expiry is a destination that has expired or expires soon.
type Expiry struct {
	Name string
	// At is the time from which the destination opens nothing.
	At time.Time
	// Days is the least number of expiryNotices that At is not further away than. It is 0 if the destination has expired.
	Days int
}

// expiryNotices are how many days before its time the agent reports that a destination expires, ascending.
var expiryNotices = [...]int{1, 7, 30}

const day = 24 * time.Hour

// setExpiries sets Expiries and NextChange, and adds a warning for each destination that expires soon.
func (c *Compiled) setExpiries(now time.Time, warnings *policy.Warnings) {
	if now.IsZero() {
		return
	}
	for i, d := range c.Policy.Destinations {
		if d.Expires.IsZero() {
			continue
		}
		expiry := Expiry{Name: d.Name, At: d.Expires, Days: -1}
		if d.IsExpired(now) {
			expiry.Days = 0
		} else {
			c.setNextChange(d.Expires)
			if c.NextExpiry.IsZero() || d.Expires.Before(c.NextExpiry) {
				c.NextExpiry = d.Expires
			}
		}
		for _, days := range expiryNotices {
			notice := d.Expires.Add(-time.Duration(days) * day)
			if now.Before(notice) {
				c.setNextChange(notice)
			} else if expiry.Days < 0 {
				expiry.Days = days
			}
		}
		if expiry.Days < 0 {
			continue
		}
		c.Expiries = append(c.Expiries, expiry)
		if expiry.Days == 0 {
			warnings.Add(policy.ExpiresSoon, i, "expires", "%s has expired, %s, and opens nothing; remove it", d.Name, policy.FormatExpiry(d.Expires))
		} else {
			warnings.Add(policy.ExpiresSoon, i, "expires", "%s expires within %s: %s; set a later date if its pods still need it",
				d.Name, formatDays(expiry.Days), policy.FormatExpiry(d.Expires))
		}
	}
}

func (c *Compiled) setNextChange(next time.Time) {
	if c.NextChange.IsZero() || next.Before(c.NextChange) {
		c.NextChange = next
	}
}

// expiredAt returns the latest time of an expired destination, or the zero Time if none has expired.
func (c *Compiled) expiredAt() time.Time {
	var latest time.Time
	for _, expiry := range c.Expiries {
		if expiry.Days == 0 && expiry.At.After(latest) {
			latest = expiry.At
		}
	}
	return latest
}

// expiredProblems returns a problem for each expired destination that old lacks, at most policy.MaxProblems. old may be
// nil.
func (c *Compiled) expiredProblems(old *policy.Policy) policy.Problems {
	expiredAt := c.expiredAt()
	if expiredAt.IsZero() {
		return nil
	}
	stored := make(map[string]policy.Destination)
	if old != nil {
		for _, d := range old.Destinations {
			stored[d.Name] = d
		}
	}
	var problems policy.Problems
	for i, d := range c.Policy.Destinations {
		if d.IsExpired(expiredAt) && !reflect.DeepEqual(d, stored[d.Name]) && len(problems) < policy.MaxProblems {
			problems = append(problems, policy.Problem{
				Path: fmt.Sprintf("allowedDestinations[%d].expires", i),
				Message: fmt.Sprintf("Expired: %s opens nothing since %s; remove it, or set a later date",
					d.Name, d.Expires.Format(time.RFC3339)),
			})
		}
	}
	return problems
}

// ExpiredText returns one line about the destinations that have expired, or "" if none has.
func (c *Compiled) ExpiredText() string {
	if names := c.formatExpiries(0); names != "" {
		return "These destinations have expired and open nothing: " + names
	}
	return ""
}

// ExpiringText returns one line about the destinations that expire soon, the nearest first, or "" if none does.
func (c *Compiled) ExpiringText() string {
	var texts []string
	for _, days := range expiryNotices {
		if names := c.formatExpiries(days); names != "" {
			texts = append(texts, "within "+formatDays(days)+": "+names)
		}
	}
	if texts == nil {
		return ""
	}
	return "These destinations expire and then open nothing: " + strings.Join(texts, "; ")
}

// formatExpiries returns the expiries with these Days, as "vpn on 2027-03-31, db on 2027-04-30".
func (c *Compiled) formatExpiries(days int) string {
	const maxShown = 10
	var texts []string
	count := 0
	for _, expiry := range c.Expiries {
		if expiry.Days != days {
			continue
		}
		if count++; count <= maxShown {
			texts = append(texts, expiry.Name+" on "+policy.FormatExpiry(expiry.At))
		}
	}
	if count > maxShown {
		texts = append(texts, fmt.Sprintf("%d more", count-maxShown))
	}
	return strings.Join(texts, ", ")
}

func formatDays(days int) string {
	if days == 1 {
		return "1 day"
	}
	return fmt.Sprintf("%d days", days)
}

// notBeforeExpiry returns the current time for the policy in: in.Now or, if c was made from the same policy, the time
// until which its expired destinations are closed, whichever is later. c is nil if no NetworkPolicy exists.
func (c *Current) notBeforeExpiry(in Inputs) time.Time {
	if c == nil || in.Now.IsZero() {
		return in.Now
	}
	isSamePolicy := c.Annotations[PolicyDigestAnnotation] == in.PolicyDigest
	if expiredAt, err := time.Parse(time.RFC3339, c.Annotations[ExpiredAnnotation]); err == nil && isSamePolicy && expiredAt.After(in.Now) {
		return expiredAt
	}
	return in.Now
}
