package netpol

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

// corpus is the folder of policy documents that test both the Go validator and the JSON Schema.
const corpus = "../../testdata/policy"

// TestCorpus compiles each document as admission does before any table is loaded. A valid document must have exactly
// the warnings in its golden file, and an invalid one exactly the problems. UPDATE_GOLDEN=1 rewrites the golden files.
func TestCorpus(t *testing.T) {
	t.Run("valid", func(t *testing.T) {
		eachDocument(t, "valid", ".warn", func(t *testing.T, data string) []string {
			result, problems := evaluate(data)
			require.Empty(t, problems)
			for _, warning := range result.Warnings {
				require.LessOrEqual(t, len([]rune("Warning: "+warning.String())), 256, "an API server cuts longer warnings")
			}
			return lines(result.Warnings)
		})
	})
	t.Run("invalid", func(t *testing.T) {
		eachDocument(t, "invalid", ".err", func(t *testing.T, data string) []string {
			result, problems := evaluate(data)
			require.Nil(t, result)
			require.NotEmpty(t, problems)
			require.True(t, strings.HasPrefix(problems.Error(), "Policy validation failed: "+problems[0].String()))
			return lines(problems)
		})
	})
}

// TestPlatformCorpus does the same for platform documents.
func TestPlatformCorpus(t *testing.T) {
	compilePlatform := func(data string) (PlatformDocument, policy.Problems, policy.Problems) {
		return CompilePlatform(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "baseline"}, Data: map[string]string{platform.Key: data}},
			Inputs{Options: Options{Family: IPv4, AllowDNS: true, MaxPortSlots: DefaultPortSlots}})
	}
	t.Run("valid", func(t *testing.T) {
		eachDocument(t, "../platform/valid", ".warn", func(t *testing.T, data string) []string {
			document, warnings, problems := compilePlatform(data)
			require.Empty(t, problems)
			require.Equal(t, document.Base == nil, document.BaseDocument == "")
			return lines(warnings)
		})
	})
	t.Run("invalid", func(t *testing.T) {
		eachDocument(t, "../platform/invalid", ".err", func(t *testing.T, data string) []string {
			document, _, problems := compilePlatform(data)
			require.Nil(t, document.Document)
			require.NotEmpty(t, problems)
			return lines(problems)
		})
	})
}

func evaluate(data string) (*result, policy.Problems) {
	return compileDocument(&corev1.ConfigMap{Data: map[string]string{policy.Key: data}}, nil, Options{Family: IPv4, AllowDNS: true, MaxPortSlots: DefaultPortSlots})
}

func lines(problems policy.Problems) []string {
	var all []string
	for _, p := range problems {
		all = append(all, p.String()+"\n")
	}
	return all
}

// eachDocument calls messagesOf for every document of a folder. The test fails for a golden file without a document.
func eachDocument(t *testing.T, folder, goldenSuffix string, messagesOf func(t *testing.T, data string) []string) {
	entries, err := os.ReadDir(filepath.Join(corpus, folder))
	require.NoError(t, err)
	documents := 0
	for _, entry := range entries {
		name, isDocument := strings.CutSuffix(entry.Name(), ".json")
		if !isDocument {
			golden, isGolden := strings.CutSuffix(entry.Name(), goldenSuffix)
			require.True(t, isGolden, "%s/%s is neither a document nor a golden", folder, entry.Name())
			require.FileExists(t, filepath.Join(corpus, folder, golden+".json"), "a golden without its document")
			continue
		}
		documents++
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(corpus, folder, name+".json"))
			require.NoError(t, err)
			got := strings.Join(messagesOf(t, string(data)), "")
			golden := filepath.Join(corpus, folder, name+goldenSuffix)
			if os.Getenv("UPDATE_GOLDEN") != "" {
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err, "run with UPDATE_GOLDEN=1 to write it, then read it")
			require.Equal(t, string(want), got)
		})
	}
	require.Positive(t, documents)
}
