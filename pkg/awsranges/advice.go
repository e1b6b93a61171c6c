package awsranges

import (
	"slices"
	"strconv"
	"strings"
	"unicode"

	"egress-agent/pkg/internal/nearest"
)

// mostLabels is how many labels at the end of a host name may name a service: executeapi, dkr.ecr.
const mostLabels = 3

// longestName bounds the work for a name: no host name is longer.
const longestName = 255

// ServiceHint says what to write instead of the name of a service that neither the catalogue nor the table,
// which may be nil, has: the published service that it means ("did you mean s3?"), or how to reach one of
// which AWS publishes no ranges. It understands the names that endpoints, IAM, the SDKs and people use. It
// never names a wider service than the one meant. One printable line, without a full stop; empty if it
// knows nothing that helps.
func (t *Table) ServiceHint(name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "" || len(name) > longestName {
		return ""
	}
	if hint := notAService(name); hint != "" {
		return hint
	}
	labels, isEndpoint := serviceLabels(name)
	for i := range labels {
		if i > 0 && len(labels)-i > mostLabels {
			continue
		}
		if hint := hintFor(compact(strings.Join(labels[i:], ".")), isEndpoint && i == 0, isEndpoint); hint != "" {
			return hint
		}
		if !isEndpoint {
			break // only a host name has names of the customer's own in front
		}
	}
	if isEndpoint {
		return "AWS publishes no ranges by this name; if it has an interface endpoint, list the endpoint's subnets as cidr"
	}
	if near := t.NearestService(name); near != "" {
		return didYouMean(near)
	}
	if len(labels) > 1 {
		return "awsService takes the name of an AWS service; list the addresses of a host as cidr"
	}
	return nearestUnpublished(compact(name))
}

// notAService recognises what belongs elsewhere in a policy.
func notAService(name string) string {
	switch strings.Trim(compact(name), "/") {
	case "":
		if !strings.Contains(name, "*") {
			break
		}
		fallthrough
	case "all", "any", "aws", "amazonaws", "amazonawscom", "amazoncom", "awsamazon", "awscom", "everything", "internet":
		return "name one service an entry, such as s3"
	}
	switch {
	case strings.HasPrefix(name, "pl-"):
		return "it is a prefix list: name its service, such as s3 or dynamodb, or list its CIDRs as cidr"
	case name[0] >= '0' && name[0] <= '9' && strings.Trim(name, "0123456789./") == "":
		return "it is an address: write it as cidr"
	}
	return ""
}

// hintFor gives the advice for a compact name. isAPI means that the name is of an endpoint and nothing
// stood in front of it; isEndpoint, that it is of an endpoint.
func hintFor(key string, isAPI, isEndpoint bool) string {
	if hint := adviceFor(key, isAPI, isEndpoint); hint != "" {
		return hint
	}
	for _, brand := range []string{"amazon", "aws"} {
		if rest, ok := strings.CutPrefix(key, brand); ok && rest != "" {
			// Amazon EC2 is the name of the service, whose API is not among the addresses published as EC2.
			if hint := adviceFor(rest, true, isEndpoint); hint != "" {
				return hint
			}
		}
	}
	return ""
}

func adviceFor(key string, isAPI, isEndpoint bool) string {
	if isAPI || isEndpoint {
		if endpoint, ok := apiOnly[key]; ok {
			return "AWS publishes no ranges for its API; " + createEndpoint(endpoint)
		}
	}
	if hint, ok := particular[key]; ok {
		return hint
	}
	if endpoint, ok := inVPC[key]; ok {
		if isAPI && isEndpoint && endpoint != "" {
			return "AWS publishes no ranges for its API; " + createEndpoint(endpoint)
		}
		return "AWS publishes no ranges for it, it stands in your VPC; list its subnets as cidr"
	}
	if endpoint, ok := otherNames[key]; ok {
		return "AWS publishes no ranges for it; " + createEndpoint(endpoint)
	}
	if endpoint, ok := interfaceEndpoints[key]; ok {
		return "AWS publishes no ranges for it; " + createEndpoint(endpoint)
	}
	if published, ok := publishedAs[key]; ok {
		return didYouMean(strings.ToLower(published))
	}
	for _, s := range services {
		if isCompact(key, s.Name) && !slices.Contains(wide, s.Name) {
			return didYouMean(strings.ToLower(s.Name))
		}
	}
	return ""
}

func createEndpoint(endpoint string) string {
	return "create its interface endpoint (" + endpoint + ") and list the endpoint's subnets as cidr"
}

func didYouMean(name string) string { return "did you mean " + name + "?" }

// serviceLabels reduces the name of an endpoint to the labels that name the service, in the order in which
// they stand: sqs for com.amazonaws.us-east-1.sqs and for https://sqs.us-east-1.amazonaws.com/1/queue; bucket and
// s3 for bucket.s3.amazonaws.com; s3 for arn:aws:s3:::bucket, s3:GetObject and AWS::S3::Bucket. isEndpoint
// means that the name is an endpoint's or a principal's.
func serviceLabels(name string) (labels []string, isEndpoint bool) {
	if _, after, ok := strings.Cut(name, "://"); ok {
		name = after
	}
	name, _, _ = strings.Cut(name, "/")
	if after, ok := strings.CutPrefix(name, "arn:"); ok {
		_, name, _ = strings.Cut(after, ":")
	}
	name, rest, _ := strings.Cut(strings.TrimPrefix(name, "aws::"), ":")
	isEndpoint = strings.Trim(rest, "0123456789") != "" // an action, or the rest of an ARN, and not a port
	name = strings.Trim(name, ".")
	for _, suffix := range []string{".amazonaws.com.cn", ".amazonaws.com", ".api.aws", ".cloudfront.net", ".amazonaws.eu"} {
		if before, ok := strings.CutSuffix(name, suffix); ok {
			name, isEndpoint = before, true
			if suffix == ".cloudfront.net" {
				name = "cloudfront"
			}
			break
		}
	}
	for _, prefix := range []string{"cn.com.amazonaws.", "com.amazonaws.", "aws.api.", "aws.sagemaker."} {
		if after, ok := strings.CutPrefix(name, prefix); ok {
			name, isEndpoint = after, true
			break
		}
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || label == "*" || isEndpoint && (isRegionName(label) || label == "global" || label == "vpce" || label == "dualstack" || label == "fips") {
			continue
		}
		labels = append(labels, strings.TrimPrefix(strings.TrimSuffix(withoutRegion(label), "-fips"), "fips-"))
	}
	return labels, isEndpoint
}

// withoutRegion cuts the region off s3-us-west-2, as old host names have it.
func withoutRegion(label string) string {
	if !strings.Contains(label, "-") {
		return label
	}
	for _, region := range regions {
		if before, ok := strings.CutSuffix(label, region); ok && strings.HasSuffix(before, "-") {
			return strings.TrimSuffix(before, "-")
		}
	}
	return label
}

// isRegionName reports whether a label is shaped as us-east-1 is. The endpoint may be in a region that is
// newer than the catalogue.
func isRegionName(label string) bool {
	area, rest, _ := strings.Cut(label, "-")
	direction, number, ok := strings.Cut(rest, "-")
	if i := strings.LastIndexByte(number, '-'); i >= 0 {
		number = number[i+1:] // us-gov-west-1
	}
	return ok && len(area) >= 2 && len(area) <= 4 && strings.Trim(area, "abcdefghijklmnopqrstuvwxyz") == "" && direction != "" && len(number) == 1 && number[0] >= '1' && number[0] <= '9'
}

// compact leaves the letters and digits of a name, in lower case, and any other character than separators
// and what cannot be seen.
func compact(name string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("-_. *", r) || !unicode.IsPrint(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
}

// isCompact reports whether key is compact(name), for a name of letters, digits, - and _.
func isCompact(key, name string) bool {
	i := 0
	for j := range len(name) {
		letter := name[j]
		switch {
		case letter == '_' || letter == '-':
			continue
		case 'A' <= letter && letter <= 'Z':
			letter += 'a' - 'A'
		}
		if i == len(key) || key[i] != letter {
			return false
		}
		i++
	}
	return i == len(key)
}

// wide are the services that are suggested only for a slip of the pen: whatever else the writer
// meant is a part of them.
var wide = []string{"AMAZON", "EC2"}

// isSlip reports whether a name, in upper case, is a misspelling of meant and of nothing else: one change that
// leaves the first and the last letter; in a short name only a separator or a letter too many.
func isSlip(name, meant string) bool {
	if len(meant) <= 3 {
		letters := slices.Compact([]byte(compact(name)))
		return strings.EqualFold(string(letters), meant)
	}
	return name != "" && name[0] == meant[0] && name[len(name)-1] == meant[len(meant)-1] && nearest.Within(name, meant, 1)
}

// nearestUnpublished gives the advice for the unpublished service that a compact name misspells by one change.
func nearestUnpublished(key string) string {
	if len(key) < 5 {
		return ""
	}
	for _, name := range unpublished {
		if len(name) >= 5 && name[0] == key[0] && nearest.Within(key, name, 1) {
			return "if " + name + " is meant: " + adviceFor(name, false, false)
		}
	}
	return ""
}

// isPlain reports whether a name may stand in a message as it is.
func isPlain(name string) bool {
	return strconv.Quote(name) == `"`+name+`"` && len(name) <= 64
}
