package awsranges

import (
	"slices"
	"strings"

	"egress-agent/pkg/internal/nearest"
)

// mostRegions is how many regions a hint lists.
const mostRegions = 8

// RegionHint says what to write instead of the name of a region that neither the catalogue nor the table,
// which may be nil, has: what it is ("it is a zone of us-east-1; did you mean us-east-1?"), or the region
// that it means. One printable line, without a full stop; empty if it knows nothing that helps.
func (t *Table) RegionHint(name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "" || len(name) > longestName {
		return ""
	}
	name = strings.TrimPrefix(name, "fips-")
	key := compact(name)
	switch key {
	case "", "all", "any", "every", "everywhere", "allregions", "anyregion":
		if key == "" && !strings.Contains(name, "*") {
			return ""
		}
		return "leave regions out for every region"
	case "global", "awsglobal", "worldwide":
		return didYouMean("GLOBAL")
	}
	if strings.Contains("-"+name, "-iso") {
		return "it is in another AWS partition, whose ranges AWS does not publish; list its addresses as cidr"
	}
	known := t.hintRegions()
	if hint := severalRegions(name, known); hint != "" {
		return hint
	}
	named, ok := regionNames[name]
	if !ok {
		named = regionNames[place(name)]
	}
	for _, region := range known {
		if isCompact(key, region) || named == region {
			return didYouMean(region)
		}
	}
	if hint := zoneHint(name, known); hint != "" {
		return hint
	}
	if hint := stemHint(name, known); hint != "" {
		return hint
	}
	if near := t.NearestRegion(name); near != "" {
		return didYouMean(near)
	}
	return ""
}

// hintRegions are the regions that may be suggested.
func (t *Table) hintRegions() []string {
	if t == nil {
		return regions
	}
	known := slices.Clone(regions)
	for _, region := range t.regionNames {
		if isPlain(region) && !slices.Contains(regions, region) {
			known = append(known, region)
		}
	}
	return known
}

// severalRegions recognises a list in one string, and a host name or an ARN with a region in it.
func severalRegions(name string, known []string) string {
	var found []string
	rest := 0
	for part := range strings.FieldsFuncSeq(name, func(r rune) bool { return strings.ContainsRune(` ,;|:./"'[]`, r) }) {
		if slices.Contains(known, part) {
			found = append(found, part)
		} else {
			rest++
		}
	}
	switch {
	case len(found) > 1 && rest == 0:
		return "write each region as an item of its own"
	case len(found) == 1:
		return didYouMean(found[0])
	}
	return ""
}

// zoneHint recognises the zones of a region by name and by ID: us-east-1a, use1-az1, us-west-2-lax-1a,
// us-east-1-wl1-bos-wlz-1 (https://docs.aws.amazon.com/global-infrastructure/latest/regions/aws-availability-zones.html).
func zoneHint(name string, known []string) string {
	for _, region := range known {
		rest, ok := strings.CutPrefix(name, region)
		if !ok {
			rest, ok = cutRegionCode(name, region)
			if ok && rest == "" {
				return didYouMean(region)
			}
			if ok && !strings.HasPrefix(rest, "-") {
				continue
			}
		}
		switch {
		case !ok || rest == "":
			continue
		case strings.Contains(rest, "-wl"):
			return "it is a Wavelength Zone of " + region + "; " + didYouMean(region)
		case len(rest) == 1 && rest[0] >= 'a' && rest[0] <= 'f', strings.HasPrefix(rest, "-az"):
			return "it is a zone of " + region + "; " + didYouMean(region)
		case isLocalZone(rest):
			return "it is a Local Zone of " + region + "; " + didYouMean(region)
		case rest[0] == '-':
			return didYouMean(region) // such as us-east-1-fips
		}
	}
	return ""
}

// isLocalZone reports whether what follows the region is shaped as -lax-1, -lax-1a or -lax1-az1 are.
func isLocalZone(rest string) bool {
	return len(rest) > 4 && rest[0] == '-' && strings.Trim(rest[1:4], "abcdefghijklmnopqrstuvwxyz") == "" && strings.ContainsAny(rest[4:5], "-123456789")
}

// cutRegionCode cuts off the code that zone IDs begin with: use1 for us-east-1, apse2 for ap-southeast-2,
// usgw1 for us-gov-west-1.
func cutRegionCode(name, region string) (rest string, ok bool) {
	area, direction, ok := strings.Cut(region, "-")
	if !ok {
		return "", false
	}
	name, ok = strings.CutPrefix(name, area)
	for ok && direction != "" {
		var part string
		part, direction, _ = strings.Cut(direction, "-")
		code := part[:min(1, len(part))]
		for _, compass := range []string{"northeast", "northwest", "southeast", "southwest"} {
			if part == compass {
				code = part[:1] + part[len("north"):len("north")+1]
			}
		}
		name, ok = strings.CutPrefix(name, code)
	}
	return name, ok
}

// stemHint lists the regions that begin as the name does, for a name that leaves the number out, or the
// direction, or has a number that no region has: eu, us-east, eu-west-9.
func stemHint(name string, known []string) string {
	stem := strings.TrimRight(name, "0123456789-") + "-"
	var there []string
	for _, region := range known {
		if strings.HasPrefix(region, stem) {
			there = append(there, region)
		}
	}
	switch {
	case len(there) == 0 || len(stem) < 3:
		return ""
	case len(there) == 1:
		return didYouMean(there[0])
	case len(there) > mostRegions:
		there = append(there[:mostRegions:mostRegions], "more")
	}
	return "the regions there are " + strings.Join(there[:len(there)-1], ", ") + " and " + there[len(there)-1]
}

// place returns what stands in brackets at the end: Ireland for EU (Ireland).
func place(name string) string {
	if _, after, ok := strings.Cut(name, "("); ok && strings.HasSuffix(after, ")") {
		return strings.TrimSuffix(after, ")")
	}
	return ""
}

// regionNames gives the regions by the places that AWS names them after, as in Europe (Ireland), in lower case
// (https://docs.aws.amazon.com/global-infrastructure/latest/regions/aws-regions.html).
var regionNames = map[string]string{
	"bahrain": "me-south-1", "beijing": "cn-north-1", "calgary": "ca-west-1", "canada (central)": "ca-central-1", "cape town": "af-south-1",
	"frankfurt": "eu-central-1", "hong kong": "ap-east-1", "hyderabad": "ap-south-2", "ireland": "eu-west-1", "jakarta": "ap-southeast-3",
	"london": "eu-west-2", "malaysia": "ap-southeast-5", "melbourne": "ap-southeast-4", "mexico (central)": "mx-central-1", "milan": "eu-south-1",
	"mumbai": "ap-south-1", "n. california": "us-west-1", "n. virginia": "us-east-1", "new zealand": "ap-southeast-6", "ningxia": "cn-northwest-1",
	"ohio": "us-east-2", "oregon": "us-west-2", "osaka": "ap-northeast-3", "paris": "eu-west-3", "sao paulo": "sa-east-1", "são paulo": "sa-east-1",
	"seoul": "ap-northeast-2", "singapore": "ap-southeast-1", "spain": "eu-south-2", "stockholm": "eu-north-1", "sydney": "ap-southeast-2",
	"taipei": "ap-east-2", "tel aviv": "il-central-1", "thailand": "ap-southeast-7", "tokyo": "ap-northeast-1", "uae": "me-central-1",
	"aws govcloud (us-east)": "us-gov-east-1", "aws govcloud (us-west)": "us-gov-west-1", "virginia": "us-east-1", "zurich": "eu-central-2",
}

// NearestRegion returns the known region that name is a slip of the pen for; empty if there is none. A
// slip is one change, and leaves the numbers, and the area before the first hyphen but for the order of its letters. The table may be nil.
func (t *Table) NearestRegion(name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	var candidates []string
	for _, region := range t.hintRegions() {
		if sameDigits(name, region) && sameArea(name, region) && nearest.Within(name, region, 1) {
			candidates = append(candidates, region)
		}
	}
	return nearest.Name(name, candidates)
}

// sameDigits reports whether the digits of two names are the same, in the same order.
func sameDigits(a, b string) bool {
	const digits = "0123456789"
	for {
		i, j := strings.IndexAny(a, digits), strings.IndexAny(b, digits)
		if i < 0 || j < 0 {
			return i == j
		}
		if a[i] != b[j] {
			return false
		}
		a, b = a[i+1:], b[j+1:]
	}
}

func sameArea(name, region string) bool {
	area, _, hasArea := strings.Cut(name, "-")
	known, _, ok := strings.Cut(region, "-")
	if !hasArea || !ok {
		return hasArea == ok // an organisation's own name
	}
	return area == known || len(area) == 2 && len(known) == 2 && area[0] == known[1] && area[1] == known[0]
}
