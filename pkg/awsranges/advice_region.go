package awsranges

import (
	"slices"
	"strings"

	"egress-agent/pkg/internal/nearest"
)

// maxListedRegions is the maximum number of regions in a hint.
const maxListedRegions = 8

// RegionHint returns advice for a region name that neither the catalogue nor the table has. The advice says what the
// name is ("it is a zone of us-east-1; did you mean us-east-1?"), or suggests the region that the user probably means.
// The table may be nil. The result is one printable line without a full stop. It is "" if RegionHint has no advice.
func (t *Table) RegionHint(name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "" || len(name) > maxNameLength {
		return ""
	}
	name = strings.TrimPrefix(name, "fips-")
	key := compact(name)
	switch key {
	case "", "all", "any", "every", "everywhere", "allregions", "anyregion":
		if key == "" && !strings.Contains(name, "*") {
			return ""
		}
		return "omit regions to allow every region"
	case "global", "awsglobal", "worldwide":
		return didYouMean("GLOBAL")
	}
	if strings.Contains("-"+name, "-iso") {
		return "it is in another AWS partition, whose ranges AWS does not publish; list its addresses as cidr"
	}
	candidates := t.suggestedRegions()
	if hint := embeddedRegionHint(name, candidates); hint != "" {
		return hint
	}
	regionOfPlace, ok := regionByPlace[name]
	if !ok {
		regionOfPlace = regionByPlace[parenthesized(name)]
	}
	for _, region := range candidates {
		if isCompactOf(key, region) || regionOfPlace == region {
			return didYouMean(region)
		}
	}
	if hint := zoneHint(name, candidates); hint != "" {
		return hint
	}
	if hint := matchingRegionsHint(name, candidates); hint != "" {
		return hint
	}
	if suggestion := t.NearestRegion(name); suggestion != "" {
		return didYouMean(suggestion)
	}
	return ""
}

// suggestedRegions returns the regions that a hint may name.
func (t *Table) suggestedRegions() []string {
	if t == nil {
		return regions
	}
	known := slices.Clone(regions)
	for _, region := range t.regionNames {
		if isPrintable(region) && !slices.Contains(regions, region) {
			known = append(known, region)
		}
	}
	return known
}

// embeddedRegionHint returns advice for several regions in one string, and for a host name or ARN that contains
// one region. It returns "" for other names.
func embeddedRegionHint(name string, candidates []string) string {
	var found []string
	unknownCount := 0
	for part := range strings.FieldsFuncSeq(name, func(r rune) bool { return strings.ContainsRune(` ,;|:./"'[]`, r) }) {
		if slices.Contains(candidates, part) {
			found = append(found, part)
		} else {
			unknownCount++
		}
	}
	switch {
	case len(found) > 1 && unknownCount == 0:
		return "write each region as a separate item"
	case len(found) == 1:
		return didYouMean(found[0])
	}
	return ""
}

// zoneHint returns advice for the name or the ID of a zone: us-east-1a, use1-az1, us-west-2-lax-1a,
// us-east-1-wl1-bos-wlz-1. It returns "" for other names
// (https://docs.aws.amazon.com/global-infrastructure/latest/regions/aws-availability-zones.html).
func zoneHint(name string, candidates []string) string {
	for _, region := range candidates {
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
			return didYouMean(region) // for example us-east-1-fips
		}
	}
	return ""
}

// isLocalZone reports whether a name is the name of a Local Zone. suffix is the part of the name after the region, such
// as -lax-1, -lax-1a or -lax1-az1.
func isLocalZone(suffix string) bool {
	return len(suffix) > 4 && suffix[0] == '-' && strings.Trim(suffix[1:4], "abcdefghijklmnopqrstuvwxyz") == "" && strings.ContainsAny(suffix[4:5], "-123456789")
}

// cutRegionCode removes the code of a region from the beginning of name. The IDs of zones begin with this code: use1
// for us-east-1, apse2 for ap-southeast-2, usgw1 for us-gov-west-1. ok is false if name does not begin with the code.
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

// matchingRegionsHint returns a hint with the regions that begin like name, or "" if no region does. Such a name has no
// number (us-east), no direction (eu), or a number that no region has (eu-west-9).
func matchingRegionsHint(name string, candidates []string) string {
	stem := strings.TrimRight(name, "0123456789-") + "-"
	var matching []string
	for _, region := range candidates {
		if strings.HasPrefix(region, stem) {
			matching = append(matching, region)
		}
	}
	switch {
	case len(matching) == 0 || len(stem) < 3:
		return ""
	case len(matching) == 1:
		return didYouMean(matching[0])
	case len(matching) > maxListedRegions:
		matching = append(matching[:maxListedRegions:maxListedRegions], "more")
	}
	return "the matching regions are " + strings.Join(matching[:len(matching)-1], ", ") + " and " + matching[len(matching)-1]
}

// parenthesized returns the text in parentheses at the end of name: Ireland for EU (Ireland). It returns "" for
// other names.
func parenthesized(name string) string {
	if _, after, ok := strings.Cut(name, "("); ok && strings.HasSuffix(after, ")") {
		return strings.TrimSuffix(after, ")")
	}
	return ""
}

// regionByPlace maps places, in lower case, to the regions that AWS names after them, as in Europe (Ireland)
// (https://docs.aws.amazon.com/global-infrastructure/latest/regions/aws-regions.html).
var regionByPlace = map[string]string{
	"bahrain": "me-south-1", "beijing": "cn-north-1", "calgary": "ca-west-1", "canada (central)": "ca-central-1", "cape town": "af-south-1",
	"frankfurt": "eu-central-1", "hong kong": "ap-east-1", "hyderabad": "ap-south-2", "ireland": "eu-west-1", "jakarta": "ap-southeast-3",
	"london": "eu-west-2", "malaysia": "ap-southeast-5", "melbourne": "ap-southeast-4", "mexico (central)": "mx-central-1", "milan": "eu-south-1",
	"mumbai": "ap-south-1", "n. california": "us-west-1", "n. virginia": "us-east-1", "new zealand": "ap-southeast-6", "ningxia": "cn-northwest-1",
	"ohio": "us-east-2", "oregon": "us-west-2", "osaka": "ap-northeast-3", "paris": "eu-west-3", "sao paulo": "sa-east-1", "são paulo": "sa-east-1",
	"seoul": "ap-northeast-2", "singapore": "ap-southeast-1", "spain": "eu-south-2", "stockholm": "eu-north-1", "sydney": "ap-southeast-2",
	"taipei": "ap-east-2", "tel aviv": "il-central-1", "thailand": "ap-southeast-7", "tokyo": "ap-northeast-1", "uae": "me-central-1",
	"aws govcloud (us-east)": "us-gov-east-1", "aws govcloud (us-west)": "us-gov-west-1", "virginia": "us-east-1", "zurich": "eu-central-2",
}

// NearestRegion returns the known region that name misspells by one change. It returns "" for other names. The change
// must not affect the digits. In the area, the part before the first hyphen, it may only swap the two letters. The
// table may be nil.
func (t *Table) NearestRegion(name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	var candidates []string
	for _, region := range t.suggestedRegions() {
		if hasSameDigits(name, region) && hasSameArea(name, region) && nearest.IsWithin(name, region, 1) {
			candidates = append(candidates, region)
		}
	}
	return nearest.Name(name, candidates)
}

// hasSameDigits reports whether two names have the same digits in the same order.
func hasSameDigits(a, b string) bool {
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

// hasSameArea reports whether name and region have the same area, the part before the first hyphen. The two letters of
// the area may be swapped.
func hasSameArea(name, region string) bool {
	nameArea, _, hasArea := strings.Cut(name, "-")
	regionArea, _, regionHasArea := strings.Cut(region, "-")
	if !hasArea || !regionHasArea {
		return hasArea == regionHasArea // the name of an organisation's own region may have no area
	}
	return nameArea == regionArea || len(nameArea) == 2 && len(regionArea) == 2 && nameArea[0] == regionArea[1] && nameArea[1] == regionArea[0]
}
