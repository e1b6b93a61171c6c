package awsranges

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

const vpcAdvice = "AWS publishes no ranges for it because it runs in your VPC; list its subnets as cidr"

func endpointAdvice(endpoint string) string {
	if endpoint == "execute-api" {
		return "AWS publishes no ranges for it; " + endpointOnly(endpoint)
	}
	return `AWS publishes no ranges for it; write "awsService": "amazon", "without": ["ec2"] and its regions, or, which opens less, ` + endpointOnly(endpoint)
}

func endpointOnly(endpoint string) string {
	return "create its interface endpoint (" + endpoint + ") and list the endpoint's subnets as cidr"
}

func apiAdvice(endpoint string) string {
	return "AWS publishes no ranges for its API; " + endpointOnly(endpoint)
}

func TestServiceHintNamesThePublishedService(t *testing.T) {
	for want, names := range map[string][]string{
		"s3": {"aws-s3", "amazon s3", "AmazonS3", "amazon-s3", "AWS S3", "s3.amazonaws.com", "com.amazonaws.us-east-1.s3", "s-3", "s3-bucket",
			"s3.us-east-1.amazonaws.com", "s3-us-west-2.amazonaws.com", "s3.dualstack.eu-west-1.amazonaws.com", "bucket.s3.amazonaws.com",
			"my.bucket.s3.ap-southeast-7.amazonaws.com", "https://bucket.s3.amazonaws.com/key?x=1", "arn:aws:s3:::bucket/*", "s3:GetObject",
			"AWS::S3::Bucket", "s3 ", "simple storage service", "cn.com.amazonaws.cn-north-1.s3", "s3.cn-north-1.amazonaws.com.cn",
			"s3-control.us-east-1.amazonaws.com", "s3-fips.us-east-1.amazonaws.com", "*.s3.amazonaws.com", "s3\u200b"},
		"dynamodb": {"com.amazonaws.us-east-1.dynamodb", "dynamodb.us-east-1.amazonaws.com", "AmazonDynamoDB", "dynamo", "dynamo-db", "dynamobd",
			"com.amazonaws.us-gov-west-1.dynamodb-fips", "dynamodb.us-east-1.api.aws"},
		"cloudfront":               {"amazon-cloudfront", "d111111abcdef8.cloudfront.net", "cloud-front", "cloudfornt"},
		"cloudfront_origin_facing": {"com.amazonaws.global.cloudfront.origin-facing", "cloudfront-originfacing"},
		"iot_core":                 {"iot", "aws-iot-core", "iotcore"},
		"amazon_connect":           {"connect", "amazonconnect"},
		"kinesis_video_streams":    {"kinesisvideo", "kinesis-video-stream", "kinesisvideo.us-east-1.amazonaws.com"},
		"globalaccelerator":        {"global-accelerator", "AWS Global Accelerator"},
		"route53_resolver":         {"route53resolver"},
		"ec2_instance_connect":     {"ec2instanceconnect", "aws ec2 instance connect"},
		"amazon":                   {"amazn", "amaz0n", "ammazon", "ama-zon"},
		"ec2":                      {"ec-2", "ec22", "ec 2"},
	} {
		for _, name := range names {
			require.Equal(t, "did you mean "+want+"?", (*Table)(nil).ServiceHint(name), "%q", name)
		}
	}
}

func TestServiceHintReturnsAlternatives(t *testing.T) {
	for _, test := range []struct {
		want  string
		names []string
	}{
		{endpointAdvice("sqs"), []string{"sqs", "SQS", "amazon-sqs", "Amazon SQS", "sqs.amazonaws.com", "com.amazonaws.eu-west-1.sqs", "AWS::SQS::Queue",
			"simple-queue-service", "https://sqs.us-east-1.amazonaws.com/123456789012/queue", "us-east-1.queue.amazonaws.com", "arn:aws:sqs:us-east-1:1:q", "sqs:*"}},
		{endpointAdvice("sts"), []string{"sts", "sts.amazonaws.com", "aws-sts", "sts.us-east-1.amazonaws.com", "sts-fips.us-east-1.amazonaws.com"}},
		{endpointAdvice("secretsmanager"), []string{"secretsmanager", "secrets-manager", "Secrets_Manager", "AWS Secrets Manager", "secretmanager"}},
		{endpointAdvice("monitoring"), []string{"monitoring", "cloudwatch", "AmazonCloudWatch", "com.amazonaws.us-east-1.monitoring"}},
		{endpointAdvice("logs"), []string{"logs", "cloudwatch-logs", "logs.us-east-1.amazonaws.com"}},
		{endpointAdvice("events"), []string{"events", "eventbridge"}},
		{endpointAdvice("ecr.api and ecr.dkr"), []string{"ecr", "Amazon ECR", "ecr.amazonaws.com"}},
		{endpointAdvice("ecr.api"), []string{"ecr.api", "api.ecr.us-east-1.amazonaws.com", "com.amazonaws.us-east-1.ecr.api"}},
		{endpointAdvice("ecr.dkr"), []string{"ecr.dkr", "123456789012.dkr.ecr.us-east-1.amazonaws.com"}},
		{endpointAdvice("kinesis-streams"), []string{"kinesis", "kinesis.us-east-1.amazonaws.com"}},
		{endpointAdvice("kinesis-firehose"), []string{"firehose", "kinesis-firehose"}},
		{endpointAdvice("email-smtp"), []string{"ses", "email-smtp", "email-smtp.us-east-1.amazonaws.com"}},
		{endpointAdvice("email"), []string{"email", "sesv2"}},
		{endpointAdvice("states"), []string{"states", "step-functions", "stepfunctions", "sfn"}},
		{endpointAdvice("eks-auth"), []string{"eks-auth", "pod-identity"}},
		{endpointAdvice("eks"), []string{"eks", "pods.eks.amazonaws.com"}},
		{endpointAdvice("execute-api"), []string{"execute-api", "abc123.execute-api.us-east-1.amazonaws.com"}},
		{endpointAdvice("sagemaker.runtime"), []string{"sagemaker-runtime", "runtime.sagemaker.us-east-1.amazonaws.com"}},
		{endpointAdvice("dynamodb-streams"), []string{"dynamodb-streams", "streams.dynamodb.us-east-1.amazonaws.com"}},
		{endpointAdvice("elasticloadbalancing"), []string{"elasticloadbalancing"}},
		{apiAdvice("ec2"), []string{"ec2.amazonaws.com", "amazon-ec2", "AmazonEC2", "aws ec2", "com.amazonaws.us-east-1.ec2", "ec2:DescribeInstances", "arn:aws:ec2:::x"}},
		{apiAdvice("rds"), []string{"com.amazonaws.us-east-1.rds", "rds.us-east-1.amazonaws.com"}},
		{vpcAdvice, []string{"rds", "aurora", "RDS Proxy", "mydb.abcdef.us-east-1.rds.amazonaws.com", "elb", "alb", "elasticache", "redis", "msk", "kafka",
			"amazonmq", "opensearch", "documentdb", "redshift", "neptune", "fsx", "x-1.us-east-1.elb.amazonaws.com"}},
		{"it is a prefix list: name its service, such as s3 or dynamodb, or list its CIDRs as cidr", []string{"pl-63a5400a", "pl-0123456789abcdef0"}},
		{"name one service per destination, such as s3", []string{"*", "all", "aws", "amazonaws.com", "*.amazonaws.com", "amazon.com", "any"}},
		{"it is an address: write it as cidr", []string{"10.0.0.0/8", "52.1.2.3"}},
		{"awsService takes the name of an AWS service; list the addresses of a host as cidr", []string{"api.partner.example", "https://github.com/x"}},
		{"if you mean secretsmanager: " + endpointAdvice("secretsmanager"), []string{"secretsmanger", "secretsmanagers"}},
		{"if you mean cloudwatch: " + endpointAdvice("monitoring"), []string{"cloudwach"}},
		{"", []string{"", "  ", "billing", "invalid-svc", "payments", strings.Repeat("s3", 200), "-", "\u200b", "日本"}},
	} {
		for _, name := range test.names {
			require.Equal(t, test.want, (*Table)(nil).ServiceHint(name), "%q", name)
		}
	}
}

// TestEveryAdviceIsReachable checks that no table hides a name of another table or of the catalogue.
func TestEveryAdviceIsReachable(t *testing.T) {
	seen := make(map[string]string)
	total := 0
	for table, names := range map[string]map[string]string{"interfaceEndpoints": interfaceEndpoints, "endpointAliases": endpointAliases, "vpcServices": vpcServices, "publishedAliases": publishedAliases, "specialAdvice": specialAdvice} {
		for name := range names {
			total++
			require.Equal(t, compact(name), name)
			if other, ok := seen[name]; ok && (table != "specialAdvice" && other != "specialAdvice") {
				require.Fail(t, "duplicate name", "%s in %s and %s", name, table, other)
			}
			seen[name] = table
			for _, s := range services {
				require.False(t, isCompactOf(name, s.Name) && name != "apigateway", "%s is in the catalogue", name)
			}
			require.NotEmpty(t, (*Table)(nil).ServiceHint(name), name)
		}
	}
	require.Greater(t, total, 250)
	for name, published := range publishedAliases {
		_, ok := LookupService(published)
		require.True(t, ok, name)
	}
	for name := range apiEndpoints {
		_, ok := LookupService(strings.ToUpper(name))
		require.True(t, ok, name)
	}
}

// TestHintsNeverWiden checks that no hint suggests amazon or ec2, whatever surrounds a name.
func TestHintsNeverWiden(t *testing.T) {
	suggestion := regexp.MustCompile(`did you mean (amazon|ec2)\?`)
	names := []string{"amazonmq", "amazons3", "amazon.s3", "amazon_ec2", "ecs", "ecr", "eks", "efs1", "ec2messages", "ec2-api", "amazon linux", "amazonlinux",
		"amazon prime", "awsec2", "amazons", "amzn", "ama", "ec", "ec3", "ecs2", "elb2", "ac2", "xc2", "ec2x", "amazon1", "amazon-amazon", "com.amazonaws.us-east-1.amazon"}
	for _, table := range []map[string]string{interfaceEndpoints, endpointAliases, vpcServices, publishedAliases, specialAdvice} {
		for name := range table {
			for _, form := range []string{"%s", "amazon-%s", "aws-%s", "Amazon %s", "%s.amazonaws.com", "com.amazonaws.us-east-1.%s", "%s-x", "x%s"} {
				names = append(names, fmt.Sprintf(form, name))
			}
		}
	}
	for _, s := range services {
		if s.Name != "AMAZON" && s.Name != "EC2" {
			names = append(names, "amazon-"+s.Name, "aws "+s.Name, s.Name+".amazonaws.com")
		}
	}
	for _, name := range names {
		require.NotRegexp(t, suggestion, (*Table)(nil).ServiceHint(name), "%q", name)
	}
}

func TestServiceHintSuggestsCustomServices(t *testing.T) {
	own, err := ReadFile(custom)
	require.NoError(t, err)
	require.Equal(t, "did you mean billing?", own.ServiceHint("biling"))
	odd, err := Parse([]byte(`{"prefixes": [{"ip_prefix": "10.0.0.0/8", "service": "LED\u001bGER", "region": "x"}]}`))
	require.NoError(t, err)
	require.Empty(t, odd.ServiceHint("ledger"), "a hint never contains an unprintable name")
}

// FuzzHints checks that a hint is one printable line of bounded length and never suggests a wider service.
func FuzzHints(f *testing.F) {
	for _, name := range []string{"amazon-s3", "com.amazonaws.us-east-1.s3", "arn:aws:s3:::b", "AWS::S3::Bucket", "us-east-1a", "use1-az1", "eu", "EU (Ireland)", "*", "pl-1"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		for _, hint := range []string{(*Table)(nil).ServiceHint(name), (*Table)(nil).RegionHint(name)} {
			require.Less(t, len(hint), 400)
			require.NotContains(t, hint, "\n")
			for _, r := range hint {
				require.True(t, unicode.IsPrint(r), "%q", hint)
			}
			if strings.Contains(hint, "did you mean amazon?") {
				require.True(t, isTypo(Canonical(strings.ToLower(strings.TrimSpace(name))), "AMAZON"), "%q", name)
			}
		}
	})
}

func BenchmarkHints(b *testing.B) {
	for _, name := range []string{"aws-s3", "invalid-svc", "secretsmanger", "https://bucket.s3.us-east-1.amazonaws.com/key", strings.Repeat("x.", 120)} {
		b.Run("service "+name[:min(len(name), 20)], func(b *testing.B) {
			for b.Loop() {
				(*Table)(nil).ServiceHint(name)
			}
		})
	}
	for _, name := range []string{"us-esat-1", "mars-1", "eu", strings.Repeat("x-", 120)} {
		b.Run("region "+name[:min(len(name), 20)], func(b *testing.B) {
			for b.Loop() {
				(*Table)(nil).RegionHint(name)
			}
		})
	}
}
