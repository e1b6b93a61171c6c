package awsranges

import (
	"maps"
	"slices"
)

// The tables are keyed by a name's letters and digits in lower case, as compact gives them: secretsmanager
// for "Secrets Manager", secrets-manager and secrets_manager.

// interfaceEndpoints are the services that have interface endpoints and no published ranges, by the last
// part of the endpoint's name: sqs for com.amazonaws.us-east-1.sqs
// (https://docs.aws.amazon.com/vpc/latest/privatelink/aws-services-privatelink-support.html). Services
// are left out whose names are ordinary words that an organisation gives its own: billing, profile, tax.
var interfaceEndpoints = byCompactName(
	"access-analyzer", "acm", "acm-pca", "airflow.api", "airflow.env", "airflow.ops", "aoss", "apigateway", "appconfig", "appconfigdata",
	"application-autoscaling", "application-signals", "appmesh", "appmesh-envoy-management", "apprunner", "appsync-api", "aps",
	"aps-workspaces", "athena", "auditmanager", "autoscaling", "autoscaling-plans", "backup", "batch", "bedrock", "bedrock-agent",
	"bedrock-agent-runtime", "bedrock-agentcore", "bedrock-agentcore.gateway", "bedrock-agentcore-control", "bedrock-data-automation",
	"bedrock-data-automation-runtime", "bedrock-runtime", "cassandra", "ce", "cloudcontrolapi", "cloudformation", "cloudhsmv2",
	"cloudtrail", "codeartifact.api", "codeartifact.repositories", "codecommit", "codeconnections.api", "codedeploy",
	"codedeploy-commands-secure", "codeguru-profiler", "codeguru-reviewer", "codepipeline", "codestar-connections.api", "cognito-identity",
	"cognito-idp", "comprehend", "comprehendmedical", "compute-optimizer", "config", "databrew", "dataexchange", "datasync", "datazone",
	"dms", "ds", "dynamodb-streams", "ec2messages", "ecr.api", "ecr.dkr", "ecr-public.api", "ecs", "ecs-agent", "ecs-telemetry", "eks",
	"eks-auth", "elasticbeanstalk", "elasticloadbalancing", "elasticmapreduce", "email", "email-smtp", "emr-containers", "emr-serverless",
	"entityresolution", "events", "execute-api", "fis", "forecast", "frauddetector", "git-codecommit", "glue", "grafana",
	"grafana-workspace", "greengrass", "guardduty", "guardduty-data", "healthlake", "iam", "identitystore", "imagebuilder",
	"inspector-scan", "inspector2", "iot.data", "iot.credentials", "iotsitewise.api", "iotsitewise.data", "kendra", "kinesis-firehose",
	"kinesis-streams", "kinesisanalytics", "kms", "lakeformation", "lambda", "license-manager", "logs", "macie2", "mail-manager",
	"monitoring", "network-firewall", "organizations", "personalize", "personalize-runtime", "pi", "pinpoint", "pinpoint-sms-voice-v2",
	"pipes", "polly", "pricing.api", "qbusiness", "ram", "rds-data", "redshift-data", "rekognition", "resource-groups", "rolesanywhere",
	"s3-outposts", "s3tables", "s3vectors", "sagemaker.api", "sagemaker.featurestore-runtime", "sagemaker.runtime", "scheduler", "schemas",
	"secretsmanager", "securityhub", "securitylake", "servicecatalog", "servicediscovery", "shield", "sns", "sqs", "ssm", "ssm-contacts",
	"ssm-incidents", "ssmmessages", "states", "storagegateway", "sts", "swf", "sync-states", "synthetics", "tagging",
	"textract", "transcribe", "transcribestreaming", "transfer", "transfer.server", "translate",
	"trustedadvisor", "verifiedpermissions", "vpc-lattice", "wafv2", "wellarchitected", "workspaces", "xray",
)

// otherNames give those services by the names that consoles, SDKs, endpoints' host names and people use.
var otherNames = map[string]string{
	"airflow": "airflow.api, airflow.env and airflow.ops", "amp": "aps-workspaces", "apiecr": "ecr.api", "apisagemaker": "sagemaker.api",
	"apiecrpublic": "ecr-public.api", "appsync": "appsync-api", "bedrockagents": "bedrock-agent-runtime", "certificatemanager": "acm",
	"cloudhsm": "cloudhsmv2", "cloudmap": "servicediscovery", "cloudwatch": "monitoring", "cloudwatchevents": "events",
	"cloudwatchlogs": "logs", "cloudwatchmetrics": "monitoring", "cloudwatchmonitoring": "monitoring",
	"codeartifact": "codeartifact.api and codeartifact.repositories", "codeconnections": "codeconnections.api",
	"codestarconnections": "codestar-connections.api", "cognito": "cognito-idp and cognito-identity", "cognitoidentitypool": "cognito-identity",
	"cognitoidentityprovider": "cognito-idp", "cognitouserpools": "cognito-idp", "containerinsights": "logs and monitoring",
	"costexplorer": "ce", "databasemigrationservice": "dms", "datafirehose": "kinesis-firehose",
	"directoryservice": "ds", "dkrecr": "ecr.dkr", "ec2autoscaling": "autoscaling", "ecr": "ecr.api and ecr.dkr", "ecra": "ecs-agent",
	"ecrpublic": "ecr-public.api", "elasticcontainerregistry": "ecr.api and ecr.dkr", "elasticcontainerservice": "ecs",
	"elastickubernetesservice": "eks", "elasticloadbalancingv2": "elasticloadbalancing", "emr": "elasticmapreduce",
	"emroneks": "emr-containers", "eventbridge": "events", "eventbridgepipes": "pipes", "eventbridgescheduler": "scheduler",
	"firehose": "kinesis-firehose", "iamidentitycenter": "identitystore", "identityandaccessmanagement": "iam", "inspector": "inspector2",
	"keymanagementservice": "kms", "keyspaces": "cassandra", "kinesis": "kinesis-streams", "kinesisdatafirehose": "kinesis-firehose",
	"kinesisdatastreams": "kinesis-streams", "log": "logs", "macie": "macie2", "managedgrafana": "grafana-workspace",
	"managedprometheus": "aps-workspaces", "managedserviceforprometheus": "aps-workspaces", "metrics": "monitoring",
	"mwaa": "airflow.api, airflow.env and airflow.ops", "opensearchserverless": "aoss",
	"parameterstore": "ssm", "performanceinsights": "pi", "podidentity": "eks-auth", "privateca": "acm-pca",
	"prometheus": "aps-workspaces", "queue": "sqs", "sqsqueue": "sqs", "rdsdataapi": "rds-data", "resourcegroupstaggingapi": "tagging",
	"runtimesagemaker": "sagemaker.runtime", "sagemaker": "sagemaker.api and sagemaker.runtime",
	"secretmanager": "secretsmanager", "secrets": "secretsmanager", "securitytokenservice": "sts", "ses": "email-smtp", "sesv2": "email",
	"sessionmanager": "ssm and ssmmessages", "sfn": "states", "simpleemailservice": "email-smtp", "simplenotificationservice": "sns",
	"simplequeueservice": "sqs", "simplesystemsmanager": "ssm", "stepfunction": "states", "stepfunctions": "states",
	"streamsdynamodb": "dynamodb-streams", "systemsmanager": "ssm, ssmmessages and ec2messages",
	"timestream": "timestream.ingest-CELL and timestream.query-CELL", "tokenservice": "sts", "waf": "wafv2",
}

// inVPC are the services that stand in the customer's own VPC; with the suffix of the interface endpoint of
// their API, which creates and describes what stands there, or the empty string if it has none.
var inVPC = map[string]string{
	"activemq": "", "alb": "", "amazonmq": "mq", "applicationloadbalancer": "", "aurora": "", "auroramysql": "", "aurorapostgresql": "",
	"classicloadbalancer": "", "dax": "", "docdb": "", "documentdb": "", "elasticache": "elasticache", "elasticsearch": "",
	"elasticsearchservice": "", "elb": "", "elbv2": "", "es": "", "fsx": "fsx", "kafka": "kafka", "loadbalancer": "",
	"managedstreamingforapachekafka": "", "memcached": "", "memorydb": "memory-db", "mq": "mq", "msk": "", "neptune": "",
	"networkloadbalancer": "", "nlb": "", "opensearch": "", "opensearchservice": "", "rabbitmq": "", "redis": "", "mysql": "", "postgres": "",
	"postgresql": "", "rds": "rds", "rdsproxy": "",
	"redshift": "redshift", "redshiftserverless": "redshift-serverless", "relationaldatabaseservice": "", "timestreaminfluxdb": "", "valkey": "",
}

// publishedAs gives the published names of services that people call otherwise. None of them is wider than the
// service that is meant.
var publishedAs = map[string]string{
	"appflow": "AMAZON_APPFLOW", "connect": "AMAZON_CONNECT", "dsql": "AURORA_DSQL", "dynamo": "DYNAMODB", "ebsdirect": "EBS",
	"elasticblockstore": "EBS", "iot": "IOT_CORE", "kinesisvideo": "KINESIS_VIDEO_STREAMS",
	"mediapackage": "MEDIA_PACKAGE_V2", "resolver": "ROUTE53_RESOLVER", "s3accesspoint": "S3",
	"s3api": "S3", "s3bucket": "S3", "s3control": "S3", "s3dualstack": "S3", "s3website": "S3", "simplestorageservice": "S3",
	"videostreams": "KINESIS_VIDEO_STREAMS",
}

// particular is the advice for services that need more words.
var particular = map[string]string{
	"apigateway":        "AWS publishes only the addresses that it calls from; to call an API, create the interface endpoint (execute-api) and list the endpoint's subnets as cidr",
	"chime":             "did you mean chime_meetings or chime_voiceconnector?",
	"elasticfilesystem": "did you mean efs? the mount targets of a file system stand in your VPC: list their subnets as cidr",
	"ivs":               "did you mean ivs_low_latency or ivs_realtime?",
	"s3express":         "AWS publishes no ranges for it; list the CIDRs of the prefix list of its gateway endpoint (s3express) as cidr",
}

// apiOnly are the published services whose API answers at other addresses than the published ones, with the
// last part of the name of the API's interface endpoint. The names of endpoints mean the API, and so does a name
// with the brand in front, as Amazon EC2: never every customer's instances.
var apiOnly = map[string]string{"codebuild": "codebuild", "ec2": "ec2", "route53": "route53"}

func byCompactName(names ...string) map[string]string {
	byName := make(map[string]string, len(names))
	for _, name := range names {
		byName[compact(name)] = name
	}
	return byName
}

// unpublished are the keys of the services of which AWS publishes no ranges, sorted.
var unpublished = func() []string {
	keys := slices.Collect(maps.Keys(interfaceEndpoints))
	keys = slices.AppendSeq(keys, maps.Keys(otherNames))
	keys = slices.AppendSeq(keys, maps.Keys(inVPC))
	slices.Sort(keys)
	return keys
}()
