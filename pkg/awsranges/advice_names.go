package awsranges

import (
	"maps"
	"slices"
)

// The keys of these tables are results of compact: secretsmanager for "Secrets Manager", secrets-manager and
// secrets_manager.

// interfaceEndpoints are the services with interface endpoints and without published ranges. A value is the last part
// of the endpoint's name: sqs for com.amazonaws.us-east-1.sqs
// (https://docs.aws.amazon.com/vpc/latest/privatelink/aws-services-privatelink-support.html). The table omits ordinary
// words, such as billing, profile and tax, because an organisation may use them for its services.
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

// endpointAliases maps further names of services without published ranges to the last parts of their endpoints' names.
// Consoles, SDKs, host names and people use these names.
var endpointAliases = map[string]string{
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

// vpcServices are the services that run in the customer's VPC. The value is the last part of the name of the API's
// interface endpoint, or "" if the API has no interface endpoint. The API creates and describes the resources in the
// VPC.
var vpcServices = map[string]string{
	"activemq": "", "alb": "", "amazonmq": "mq", "applicationloadbalancer": "", "aurora": "", "auroramysql": "", "aurorapostgresql": "",
	"classicloadbalancer": "", "dax": "", "docdb": "", "documentdb": "", "elasticache": "elasticache", "elasticsearch": "",
	"elasticsearchservice": "", "elb": "", "elbv2": "", "es": "", "fsx": "fsx", "kafka": "kafka", "loadbalancer": "",
	"managedstreamingforapachekafka": "", "memcached": "", "memorydb": "memory-db", "mq": "mq", "msk": "", "neptune": "",
	"networkloadbalancer": "", "nlb": "", "opensearch": "", "opensearchservice": "", "rabbitmq": "", "redis": "", "mysql": "", "postgres": "",
	"postgresql": "", "rds": "rds", "rdsproxy": "",
	"redshift": "redshift", "redshiftserverless": "redshift-serverless", "relationaldatabaseservice": "", "timestreaminfluxdb": "", "valkey": "",
}

// publishedAliases maps further names of services to their names in AWS's document. No value is wider than the service
// that the user means.
var publishedAliases = map[string]string{
	"appflow": "AMAZON_APPFLOW", "connect": "AMAZON_CONNECT", "dsql": "AURORA_DSQL", "dynamo": "DYNAMODB", "ebsdirect": "EBS",
	"elasticblockstore": "EBS", "iot": "IOT_CORE", "kinesisvideo": "KINESIS_VIDEO_STREAMS",
	"mediapackage": "MEDIA_PACKAGE_V2", "resolver": "ROUTE53_RESOLVER", "s3accesspoint": "S3",
	"s3api": "S3", "s3bucket": "S3", "s3control": "S3", "s3dualstack": "S3", "s3website": "S3", "simplestorageservice": "S3",
	"videostreams": "KINESIS_VIDEO_STREAMS",
}

// specialAdvice has the complete advice for services that need a longer explanation.
var specialAdvice = map[string]string{
	"apigateway":        "AWS publishes only the addresses that it calls from; to call an API, create the interface endpoint (execute-api) and list the endpoint's subnets as cidr",
	"chime":             "did you mean chime_meetings or chime_voiceconnector?",
	"elasticfilesystem": "did you mean efs? the mount targets of a file system are in your VPC: list their subnets as cidr",
	"ivs":               "did you mean ivs_low_latency or ivs_realtime?",
	"s3express":         "AWS publishes no ranges for it; list the CIDRs of the prefix list of its gateway endpoint (s3express) as cidr",
}

// apiEndpoints are services in AWS's document whose API uses addresses that the document lacks. The value is the last
// part of the name of the API's interface endpoint. A user who writes the name of an endpoint means the API. A user who
// writes the brand, as in Amazon EC2, means the API as well. Neither user means every customer's instances.
var apiEndpoints = map[string]string{"codebuild": "codebuild", "ec2": "ec2", "route53": "route53"}

// byCompactName returns a map from the result of compact for each name to the name.
func byCompactName(names ...string) map[string]string {
	byName := make(map[string]string, len(names))
	for _, name := range names {
		byName[compact(name)] = name
	}
	return byName
}

// unpublishedNames are the keys of the services without published ranges, sorted.
var unpublishedNames = func() []string {
	keys := slices.Collect(maps.Keys(interfaceEndpoints))
	keys = slices.AppendSeq(keys, maps.Keys(endpointAliases))
	keys = slices.AppendSeq(keys, maps.Keys(vpcServices))
	slices.Sort(keys)
	return keys
}()
