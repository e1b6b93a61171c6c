package admission

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

const (
	baselineDocument = `{"namespaces": {"matchLabels": {"tier": "tenant"}}, "guardrails": {"denied": [{"name": "ten-one", "cidr": "10.1.0.0/16", "reason": "the office"}]}}`
	everywhere       = `{"namespaces": {}, "guardrails": {"denied": [{"name": "smtp", "cidr": "0.0.0.0/0", "ports": [25]}]}}`
	warning          = `{"namespaces": {}, "guardrails": {"mode": "warn", "require": ["reason"]}}`
)

// platformFile writes a snapshot as the agent does.
func platformFile(t testing.TB, path string, documents map[string]string, namespaces map[string][]string) {
	s := platform.Snapshot{Changed: 1_800_000_000, Documents: make(map[string]json.RawMessage), Namespaces: namespaces}
	for name, document := range documents {
		s.Documents[name] = json.RawMessage(document)
	}
	data, err := platform.EncodeSnapshot(s)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

func TestReviewByPlatformDocuments(t *testing.T) {
	path := filepath.Join(t.TempDir(), "platform.json.gz")
	platformFile(t, path, map[string]string{"baseline": baselineDocument, "everywhere": everywhere, "warning": warning}, map[string][]string{
		"tenant-a": {"baseline", "everywhere", "warning"}, "tenant-b": {},
	})
	p := NewPlatform(path, options, slog.New(slog.DiscardHandler))
	require.EqualValues(t, 1_800_000_000, p.ChangedAt())
	review := func(namespace, old, document string) *Response {
		r := request("CREATE", runtime.RawExtension{}, object(t, document))
		if old != "" {
			r = request("UPDATE", object(t, old), object(t, document))
		}
		r.Namespace = namespace
		read, err := readReview(review(t, r))
		require.NoError(t, err)
		response, err := Review(read, p.RulesWith(nil, options))
		require.NoError(t, err)
		return response
	}
	denied := review("tenant-a", "", good)
	require.False(t, denied.Allowed)
	require.Equal(t, "Policy validation failed: Denied by guardrail ten-one of platform document baseline (the office): db opens 10.1.0.0/24 on TCP 5432; narrow it (allowedDestinations[0])", denied.Result.Message)
	require.Equal(t, "allowedDestinations[0]", denied.Result.Details.Causes[0].Field)
	require.True(t, review("tenant-a", good, good).Allowed, "an old policy can still be annotated")
	require.False(t, review("tenant-a", good, good+" ").Allowed)
	elsewhere := review("tenant-a", "", `{"allowedDestinations": [{"name": "db", "cidr": "10.2.0.0/24", "ports": [5432]}]}`)
	require.True(t, elsewhere.Allowed)
	require.Equal(t, []string{"Missing field: reason; platform document warning requires it (allowedDestinations[0].reason)"}, elsewhere.Warnings)
	require.True(t, review("tenant-b", "", good).Allowed, "no document governs it")
	const mail = `{"allowedDestinations": [{"name": "mail", "cidr": "10.1.0.0/24", "ports": [25]}]}`
	require.True(t, review("tenant-b", "", mail).Allowed)
	require.Contains(t, review("new", "", mail).Result.Message, "guardrail smtp of platform document everywhere", "a new namespace is judged by documents for all")
	require.True(t, review("new", "", good).Allowed)
}

// Review judges platform documents as the agent does.
func TestReviewOfPlatformDocument(t *testing.T) {
	review := func(old, document string) *Response {
		with := func(document string) runtime.RawExtension {
			return object(t, "", func(c *corev1.ConfigMap) {
				c.Labels[policy.Label], c.Data = platform.LabelValue, map[string]string{platform.Key: document}
			})
		}
		r := request("CREATE", runtime.RawExtension{}, with(document))
		if old != "" {
			r = request("UPDATE", with(old), with(document))
		}
		response, err := reviewOf(t, r)
		require.NoError(t, err)
		return response
	}
	require.True(t, review("", baselineDocument).Allowed)
	denied := review("", `{"namespaces": {}}`)
	require.Equal(t, "Platform document validation failed: Must specify allowedDestinations, guardrails or both (platform.json)", denied.Result.Message)
	require.True(t, review(`{"namespaces": {}}`, `{"namespaces": {}}`).Allowed)
	require.False(t, review(baselineDocument, `{"namespaces": {}}`).Allowed)
	missing, err := reviewOf(t, request("CREATE", runtime.RawExtension{}, object(t, good, func(c *corev1.ConfigMap) { c.Labels[policy.Label] = platform.LabelValue })))
	require.NoError(t, err)
	require.Equal(t, "Platform document validation failed: Missing field: platform.json (data)", missing.Result.Message)
}

// The file of the platform appears after the webhook has started, changes, and may be defective.
func TestPlatformReloads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "platform.json.gz")
	var log bytes.Buffer
	p := NewPlatform(path, options, slog.New(slog.NewTextHandler(&log, nil)))
	require.Zero(t, p.ChangedAt())
	require.Nil(t, p.Guardrails("tenant-a", nil))
	require.Empty(t, log.String(), "a missing file is usual")
	platformFile(t, path, map[string]string{"baseline": baselineDocument, "broken": `{"namespaces": 1}`}, map[string][]string{"tenant-a": {"baseline", "broken"}})
	p.reload()
	guardrails := p.Guardrails("tenant-a", nil)
	require.NotNil(t, guardrails)
	require.Same(t, guardrails, p.Guardrails("tenant-a", nil))
	require.Contains(t, log.String(), "platform document ignored")
	table, err := awsranges.ReadFile("../../testdata/ranges/ip-ranges.json")
	require.NoError(t, err)
	require.NotSame(t, guardrails, p.Guardrails("tenant-a", table), "another table")
	for name, data := range map[string][]byte{"no gzip": []byte("x"), "too large": make([]byte, maxPlatformFile+1)} {
		log.Reset()
		require.NoError(t, os.WriteFile(path, data, 0o600))
		p.reload()
		require.NotNil(t, p.Guardrails("tenant-a", nil), name)
		require.Contains(t, log.String(), "reload platform documents failed", name)
	}
	log.Reset()
	require.NoError(t, os.Remove(path))
	p.reload()
	require.NotNil(t, p.Guardrails("tenant-a", nil))
	require.Contains(t, log.String(), "reload platform documents failed")
}

// BenchmarkReviewWithPlatform compares a review by 20 platform documents with a review without any, its floor.
// twentyDocuments returns 20 platform documents that govern the namespace tenant-a.
func twentyDocuments(t testing.TB) *Platform {
	documents, names := make(map[string]string), []string{}
	for i := range 20 {
		name := fmt.Sprintf("document-%02d", i)
		documents[name] = fmt.Sprintf(`{"namespaces": {}, "guardrails": {"denied": [{"name": "a", "cidr": "10.%d.0.0/16"}, {"name": "metadata", "cidr": "169.254.169.254/32"}], "require": ["ports", "reason"]}}`, 100+i)
		names = append(names, name)
	}
	path := filepath.Join(t.TempDir(), "platform.json.gz")
	platformFile(t, path, documents, map[string][]string{"tenant-a": names})
	return NewPlatform(path, options, slog.New(slog.DiscardHandler))
}

// TestGuardrailsOfReviewsAreKept asks for the same guardrails again. That costs the key of the kept ones, however many
// documents there are.
func TestGuardrailsOfReviewsAreKept(t *testing.T) {
	p := twentyDocuments(t)
	require.NotNil(t, p.Guardrails("tenant-a", nil))
	require.EqualValues(t, 1, testing.AllocsPerRun(100, func() { p.Guardrails("tenant-a", nil) }))
}

func BenchmarkReviewWithPlatform(b *testing.B) {
	table, err := awsranges.ReadFile("../../testdata/ranges/ip-ranges.json")
	require.NoError(b, err)
	const document = `{"allowedDestinations": [{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443], "reason": "x"}, {"name": "db", "cidr": "10.1.0.0/24", "ports": [5432], "reason": "x"}]}`
	p := twentyDocuments(b)
	body := review(b, request("CREATE", runtime.RawExtension{}, object(b, document)))
	for _, test := range []struct {
		name  string
		rules Rules
	}{{"floor", Rules{Table: table, Options: options}}, {"20 documents", p.RulesWith(table, options)}} {
		b.Run(test.name, func(b *testing.B) {
			for b.Loop() {
				read, err := readReview(body)
				require.NoError(b, err)
				response, err := Review(read, test.rules)
				require.NoError(b, err)
				require.True(b, response.Allowed)
			}
		})
	}
}
