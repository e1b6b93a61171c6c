package docs

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"egress-agent/pkg/policy"
	"egress-agent/scripts/e2e/harness"
)

// schemaGaps are the invalid documents that the schema accepts, each with the reason.
var schemaGaps = map[string]string{
	"cidr-host-bits":       "a schema cannot compute",
	"cidr-mapped":          "a schema cannot compute",
	"cidr-octets":          "a pattern for every form of an address would be unreadable",
	"except-many":          "a schema cannot count over several destinations",
	"except-services":      "a schema cannot count over several destinations",
	"without-many":         "a schema cannot count over several destinations",
	"duplicate-field":      "a parser drops one of the two before a schema checks the document",
	"name-duplicate":       "uniqueItems compares whole destinations, not one field",
	"port-slots":           "a schema cannot add the ports of several destinations",
	"port-range-backwards": "a schema cannot compare two fields",
	"port-spelling":        "to a schema 443.0 is an integer",
	"region-kinds":         "the schema lists no names: AWS adds some every year",
	"region-name":          "the schema lists no names: AWS adds some every year",
	"service-endpoints":    "the schema lists no names: AWS adds some every year",
	"service-name":         "the schema lists no names: AWS adds some every year",
}

// platformGaps are the same for platform documents.
var platformGaps = map[string]string{
	"base-exceeds-slots": "a schema cannot add the ports of several destinations",
	"unknown-service":    "the schema lists no names: AWS adds some every year",
	"within-empty":       "a schema could say it, but not why",
}

// TestSchemaMatchesValidator checks the schemas for editors with the same documents as the Go validators.
func TestSchemaMatchesValidator(t *testing.T) {
	t.Run("policy", func(t *testing.T) { checkSchema(t, "pkg/policy/policy.schema.json", "policy", schemaGaps) })
	t.Run("platform", func(t *testing.T) { checkSchema(t, "pkg/platform/platform.schema.json", "platform", platformGaps) })
}

func checkSchema(t *testing.T, file, corpus string, gaps map[string]string) {
	schema, err := jsonschema.NewCompiler().Compile(harness.Root + "/" + file)
	require.NoError(t, err)
	accepts := func(t *testing.T, path string) (accepted, isJSON bool) {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		if _, problems := policy.Parse(data); problems != nil {
			return false, false
		}
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		require.NoError(t, err)
		return schema.Validate(document) == nil, true
	}
	for _, folder := range []string{"valid", "invalid"} {
		paths, err := filepath.Glob(harness.Root + "/testdata/" + corpus + "/" + folder + "/*.json")
		require.NoError(t, err)
		require.NotEmpty(t, paths)
		for _, path := range paths {
			name := strings.TrimSuffix(filepath.Base(path), ".json")
			t.Run(folder+"/"+name, func(t *testing.T) {
				accepted, isJSON := accepts(t, path)
				if !isJSON {
					require.Equal(t, "invalid", folder)
					return // a schema only checks JSON
				}
				reason, differ := gaps[name]
				require.Equal(t, folder == "valid" || differ, accepted, "differs from the Go validator; known reason: %q", reason)
			})
		}
	}
	for name := range gaps {
		require.FileExists(t, harness.Root+"/testdata/"+corpus+"/invalid/"+name+".json")
	}
}
