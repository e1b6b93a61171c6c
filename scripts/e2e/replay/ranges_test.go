package replay

import (
	"encoding/json"
	"net/netip"
	"time"
)

const removalHold = 24 * time.Hour

// serviceRegion is a service of AWS in a region, as its documents write both.
type serviceRegion struct{ service, region string }

// publishedRanges are the rows that count after each document: those of AWS's document, and those that it lacks for less
// than removalHold.
type publishedRanges struct {
	missing map[serviceRegion]map[netip.Prefix]time.Time // since when; zero while the document has it
	open    map[serviceRegion]spans
}

func newPublishedRanges() *publishedRanges {
	return &publishedRanges{missing: make(map[serviceRegion]map[netip.Prefix]time.Time), open: make(map[serviceRegion]spans)}
}

// publish applies a document.
func (p *publishedRanges) publish(data []byte, now time.Time) error {
	var document struct {
		Prefixes []struct {
			Prefix  netip.Prefix `json:"ip_prefix"`
			Region  string       `json:"region"`
			Service string       `json:"service"`
		} `json:"prefixes"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return err
	}
	type row struct {
		serviceRegion
		prefix netip.Prefix
	}
	published := make(map[row]bool, len(document.Prefixes))
	for _, r := range document.Prefixes {
		key := serviceRegion{r.Service, r.Region}
		published[row{key, r.Prefix}] = true
		if p.missing[key] == nil {
			p.missing[key] = make(map[netip.Prefix]time.Time)
		}
		p.missing[key][r.Prefix] = time.Time{}
	}
	for key, rows := range p.missing {
		var open []span
		for prefix, since := range rows {
			if !published[row{key, prefix}] {
				if since.IsZero() {
					since, rows[prefix] = now, now
				}
				if now.Sub(since) >= removalHold {
					delete(rows, prefix)
					continue
				}
			}
			open = append(open, spanOf(prefix))
		}
		p.open[key] = join(open)
	}
	return nil
}
