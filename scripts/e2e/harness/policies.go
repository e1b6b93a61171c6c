package harness

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Policy documents. TenantAWest is TenantA with a second region. The webhook denies InvalidPolicy with InvalidMessage.
const (
	TenantA = `{"defaultAction": "deny",
 "allowedDestinations": [
   {"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]},
   {"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`
	TenantAWest = `{"defaultAction": "deny",
 "allowedDestinations": [
   {"name": "s3", "awsService": "s3", "regions": ["us-east-1", "us-west-2"], "ports": [443]},
   {"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`
	TenantB = `{"allowedDestinations": [
   {"name": "tables", "awsService": "DynamoDB", "regions": ["us-east-1"], "ports": [443]},
   {"name": "partners", "cidr": "10.2.0.0/16", "ports": [{"port": 8000, "endPort": 8100}, {"port": 53, "protocol": "UDP"}]}]}`
	S3Policy = `{"allowedDestinations": [{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]}]}`

	InvalidPolicy = `{"allowedDestinations": [
   {"name": "s3", "awsService": "s3", "regions": ["us-esat-1"], "ports": [443]},
   {"name": "db", "cidr": "10.1.0.5/24", "prots": [5432]}]}`
	InvalidMessage = `Policy validation failed: Invalid region: us-esat-1; did you mean us-east-1? (allowedDestinations[0].regions[0]); ` +
		`Invalid CIDR format: 10.1.0.5/24 has host bits set; did you mean 10.1.0.0/24? (allowedDestinations[1].cidr); ` +
		`Unknown field: prots; did you mean "ports"? (allowedDestinations[1].prots)`
)

// PolicyManifest returns a policy ConfigMap as YAML.
func PolicyManifest(namespace, name, policy string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\n"+
		"metadata:\n  name: %s\n  namespace: %s\n  labels: {egress-controller: managed}\n"+
		"data:\n  policy.json: |\n    %s\n",
		name, namespace, strings.ReplaceAll(policy, "\n", "\n    "))
}

// PolicyPatch returns the merge patch that sets the policy of a ConfigMap.
func PolicyPatch(t testing.TB, policy string) string {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"data": map[string]string{"policy.json": policy}})
	require.NoError(t, err)
	return string(patch)
}

// SparsePorts returns count ports in the form of a policy's list. No two ports are adjacent, so that the compiler
// cannot merge them to a range.
func SparsePorts(first, count int) string {
	var list []string
	for i := range count {
		list = append(list, strconv.Itoa(first+2*i))
	}
	return strings.Join(list, ", ")
}
