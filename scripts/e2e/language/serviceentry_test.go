package language

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	istio "istio.io/api/networking/v1"

	"egress-agent/scripts/e2e/harness"
)

// TestServiceEntries stores rendered ServiceEntries with Istio's own CustomResourceDefinition, which has the limits.
func TestServiceEntries(t *testing.T) {
	createDefinition(t, "serviceentries.networking.istio.io", "istio.io/api", "kubernetes", "customresourcedefinitions.gen.yaml")
	harness.CreateNamespace(t, "mesh")

	destinations := []string{`{"name": "s3", "awsService": "s3", "ports": [443]}`, `{"name": "ports", "cidr": "10.255.0.0/16", "ports": [{"port": 14900, "endPort": 15300}]}`,
		`{"name": "every", "cidr": "10.254.0.0/16"}`}
	for i := range 300 {
		destinations = append(destinations, fmt.Sprintf(`{"name": "%d", "cidr": "10.%d.%d.0/24", "ports": [5432]}`, i, i/100, 2*(i%100)))
	}
	command := exec.Command(harness.Binary(t, "egress-agent"), "render", "-f", "-", "--ranges-file", harness.RangesFile, "-o", "serviceentry")
	command.Stdin = strings.NewReader(harness.PolicyManifest("mesh", "egress", `{"allowedDestinations": [`+strings.Join(destinations, ",")+`]}`))
	var stderr bytes.Buffer
	command.Stderr = &stderr
	rendered, err := command.Output()
	require.NoError(t, err, stderr.String())
	require.Contains(t, stderr.String(), "mesh/egress: note: left out of the ServiceEntries: every port of 10.254.0.0/16: a ServiceEntry lists each port\n")
	harness.Kubectl(t, string(rendered), "create", "--validate=strict", "-f", "-")

	stored := strings.Fields(harness.Kubectl(t, "", "get", "serviceentries.networking.istio.io", "-n", "mesh", "-o", "name"))
	require.Len(t, stored, 5, "300 CIDRs and 310 ports are two entries each")
	for _, entry := range stored {
		var spec istio.ServiceEntry
		require.NoError(t, protojson.Unmarshal([]byte(harness.Kubectl(t, "", "get", entry, "-n", "mesh", "-o", "jsonpath={.spec}")), &spec))
		require.NotEmpty(t, spec.Addresses)
		require.Equal(t, istio.ServiceEntry_NONE, spec.Resolution)
		require.Equal(t, istio.ServiceEntry_MESH_EXTERNAL, spec.Location)
		require.Equal(t, []string{"."}, spec.ExportTo)
	}
}
