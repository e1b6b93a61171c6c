package awsranges

import (
	"slices"
	"strconv"
	"strings"
	"unicode"

	"egress-agent/pkg/internal/nearest"
)

// maxServiceLabels is the maximum number of labels that identify a service at the end of a host name. For example,
// api.ecr and dkr.ecr have two.
const maxServiceLabels = 3

// maxNameLength is the length, in bytes, of the longest name that gets a hint. It bounds the work. No host name is
// longer.
const maxNameLength = 255

// ServiceHint returns advice for a service name that neither the catalogue nor the table has. The advice suggests the
// service that the user probably means ("did you mean s3?"), or explains how to reach a service without published
// ranges. The table may be nil.
//
// ServiceHint understands the names of endpoints, IAM, the SDKs and everyday use. It never suggests a wider
// service than the user means. The result is one printable line without a full stop. It is "" if ServiceHint
// has no advice.
func (t *Table) ServiceHint(name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "" || len(name) > maxNameLength {
		return ""
	}
	if hint := misplacedValueHint(name); hint != "" {
		return hint
	}
	labels, isEndpoint := serviceLabels(name)
	for i := range labels {
		if i > 0 && len(labels)-i > maxServiceLabels {
			continue
		}
		if hint := hintForKey(compact(strings.Join(labels[i:], ".")), isEndpoint && i == 0, isEndpoint); hint != "" {
			return hint
		}
		if !isEndpoint {
			break // only a host name can begin with labels that a customer chose, such as the name of a bucket
		}
	}
	if isEndpoint {
		return "AWS publishes no ranges by this name; if it has an interface endpoint, list the endpoint's subnets as cidr"
	}
	if suggestion := t.NearestService(name); suggestion != "" {
		return didYouMean(suggestion)
	}
	if len(labels) > 1 {
		return "awsService takes the name of an AWS service; list the addresses of a host as cidr"
	}
	return nearestUnpublished(compact(name))
}

// misplacedValueHint returns advice for a value that is not the name of a service, such as an address. It
// returns "" for other values.
func misplacedValueHint(name string) string {
	switch strings.Trim(compact(name), "/") {
	case "":
		if !strings.Contains(name, "*") {
			break
		}
		fallthrough
	case "all", "any", "aws", "amazonaws", "amazonawscom", "amazoncom", "awsamazon", "awscom", "everything", "internet":
		return "name one service per destination, such as s3"
	}
	switch {
	case strings.HasPrefix(name, "pl-"):
		return "it is a prefix list: name its service, such as s3 or dynamodb, or list its CIDRs as cidr"
	case name[0] >= '0' && name[0] <= '9' && strings.Trim(name, "0123456789./") == "":
		return "it is an address: write it as cidr"
	}
	return ""
}

// hintForKey returns the advice for key, which is a result of compact, or "". isEndpoint reports whether the user wrote
// the name of an endpoint. isAPI reports whether no other label precedes the service in this endpoint's name, so the
// endpoint belongs to the service's API.
func hintForKey(key string, isAPI, isEndpoint bool) string {
	if hint := adviceFor(key, isAPI, isEndpoint); hint != "" {
		return hint
	}
	for _, brand := range []string{"amazon", "aws"} {
		if rest, ok := strings.CutPrefix(key, brand); ok && rest != "" {
			// A user who writes "Amazon EC2" means the service's API. It does not use the EC2 addresses of AWS's
			// document.
			if hint := adviceFor(rest, true, isEndpoint); hint != "" {
				return hint
			}
		}
	}
	return ""
}

// adviceFor returns the advice that the tables in advice_names.go have for key, or "" if no table has the key.
func adviceFor(key string, isAPI, isEndpoint bool) string {
	if isAPI || isEndpoint {
		if endpoint, ok := apiEndpoints[key]; ok {
			return "AWS publishes no ranges for its API; " + createEndpoint(endpoint)
		}
	}
	if hint, ok := specialAdvice[key]; ok {
		return hint
	}
	if endpoint, ok := vpcServices[key]; ok {
		if isAPI && isEndpoint && endpoint != "" {
			return "AWS publishes no ranges for its API; " + createEndpoint(endpoint)
		}
		return "AWS publishes no ranges for it because it runs in your VPC; list its subnets as cidr"
	}
	endpoint, ok := endpointAliases[key]
	if !ok {
		endpoint, ok = interfaceEndpoints[key]
	}
	if ok && endpoint == "execute-api" { // customers' APIs, whose addresses may be rows of EC2
		return "AWS publishes no ranges for it; " + createEndpoint(endpoint)
	}
	if ok {
		return `AWS publishes no ranges for it; write "awsService": "amazon", "without": ["ec2"] and its regions, or, which opens less, ` + createEndpoint(endpoint)
	}
	if published, ok := publishedAliases[key]; ok {
		return didYouMean(strings.ToLower(published))
	}
	for _, s := range services {
		if isCompactOf(key, s.Name) && !slices.Contains(wideServices, s.Name) {
			return didYouMean(strings.ToLower(s.Name))
		}
	}
	return ""
}

func createEndpoint(endpoint string) string {
	return "create its interface endpoint (" + endpoint + ") and list the endpoint's subnets as cidr"
}

func didYouMean(name string) string { return "did you mean " + name + "?" }

// serviceLabels returns the labels of name that can identify a service, in their order. isEndpoint reports whether name
// is an endpoint's name, a service principal, an ARN, an IAM action or a resource type. Examples:
//
//	com.amazonaws.us-east-1.sqs                   sqs
//	https://sqs.us-east-1.amazonaws.com/1/queue   sqs
//	bucket.s3.amazonaws.com                       bucket, s3
//	arn:aws:s3:::bucket                           s3
//	s3:GetObject                                  s3
//	AWS::S3::Bucket                               s3
func serviceLabels(name string) (labels []string, isEndpoint bool) {
	if _, after, ok := strings.Cut(name, "://"); ok {
		name = after
	}
	name, _, _ = strings.Cut(name, "/")
	if after, ok := strings.CutPrefix(name, "arn:"); ok {
		_, name, _ = strings.Cut(after, ":")
	}
	name, rest, _ := strings.Cut(strings.TrimPrefix(name, "aws::"), ":")
	isEndpoint = strings.Trim(rest, "0123456789") != "" // digits are a port; other text is an action or the end of an ARN
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

// withoutRegion removes the region from a label of an old host name, such as s3-us-west-2.
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

// isRegionName reports whether a label has the form of a region, such as us-east-1. It does not use the catalogue,
// because the region may be newer than the catalogue.
func isRegionName(label string) bool {
	area, rest, _ := strings.Cut(label, "-")
	direction, number, ok := strings.Cut(rest, "-")
	if i := strings.LastIndexByte(number, '-'); i >= 0 {
		number = number[i+1:] // us-gov-west-1
	}
	return ok && len(area) >= 2 && len(area) <= 4 && strings.Trim(area, "abcdefghijklmnopqrstuvwxyz") == "" && direction != "" && len(number) == 1 && number[0] >= '1' && number[0] <= '9'
}

// compact returns name in lower case, without separators and unprintable characters.
func compact(name string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("-_. *", r) || !unicode.IsPrint(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
}

// isCompactOf reports whether key == compact(name). name must consist of letters, digits, - and _. Unlike
// compact it does not allocate.
func isCompactOf(key, name string) bool {
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

// wideServices lists services that a hint suggests only for an obvious typo. Their prefixes contain the prefixes of
// other services, so a wrong guess would open far more than the user wants.
var wideServices = []string{"AMAZON", "EC2"}

// isTypo reports whether name is an obvious misspelling of service. Both are in upper case. An obvious misspelling
// differs by one change and has the same first and last letter. If service has at most three letters, isTypo allows
// only additional separators and repeated letters.
func isTypo(name, service string) bool {
	if len(service) <= 3 {
		letters := slices.Compact([]byte(compact(name)))
		return strings.EqualFold(string(letters), service)
	}
	return name != "" && name[0] == service[0] && name[len(name)-1] == service[len(service)-1] && nearest.IsWithin(name, service, 1)
}

// nearestUnpublished returns the advice for the service without published ranges whose name differs from key by
// one change. It returns "" for other keys.
func nearestUnpublished(key string) string {
	if len(key) < 5 {
		return ""
	}
	for _, name := range unpublishedNames {
		if len(name) >= 5 && name[0] == key[0] && nearest.IsWithin(key, name, 1) {
			return "if you mean " + name + ": " + adviceFor(name, false, false)
		}
	}
	return ""
}

// isPrintable reports whether a message can contain name: name is short and needs no escapes.
func isPrintable(name string) bool {
	return strconv.Quote(name) == `"`+name+`"` && len(name) <= 64
}
