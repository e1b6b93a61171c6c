package policy

import (
	"strings"
	"time"

	"egress-agent/pkg/internal/document"
)

// expires returns the time from which a destination opens nothing. A date means the end of that day in UTC.
func (v *validator) expires(n document.Node, path *document.Path) time.Time {
	if !v.CheckKind(n, document.Text, path, "expires") {
		return time.Time{}
	}
	if date, err := time.Parse(time.DateOnly, n.Text()); err == nil {
		return date.AddDate(0, 0, 1)
	}
	if moment, err := time.Parse(time.RFC3339, n.Text()); err == nil {
		return moment.UTC()
	}
	v.ReportLazily(path, func() string {
		return "Invalid expires: " + Sanitize(n.Text()) + "; " + expiresHint(n.Text())
	})
	return time.Time{}
}

// expiresHint returns what to write instead of text, which is neither a date nor a time.
func expiresHint(text string) string {
	day, _, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(text, "T", " ")), " ")
	for _, layout := range []string{"2006-1-2", "2006/1/2", "2006.1.2", "20060102"} {
		if date, err := time.Parse(layout, day); err == nil {
			if date.Format(time.DateOnly) == text[:min(len(text), len(time.DateOnly))] && len(day) < len(text) {
				return "a time needs seconds and a zone, such as " + date.Format(time.DateOnly) + "T18:00:00Z"
			}
			return "did you mean " + date.Format(time.DateOnly) + "?"
		}
	}
	return "write a date such as 2027-03-31, which is valid through that day in UTC, or a time such as 2027-03-31T18:00:00Z"
}

// FormatExpiry returns the expires of a destination for a message: a date, which is the last day in UTC, or a time.
func FormatExpiry(expires time.Time) string {
	if expires.Equal(expires.Truncate(24 * time.Hour)) {
		return expires.AddDate(0, 0, -1).Format(time.DateOnly)
	}
	return expires.Format(time.RFC3339)
}
