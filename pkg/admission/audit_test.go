package admission

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"egress-agent/pkg/audit"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

// TestAdmittedPoliciesAreAudited sends reviews, and reads the audit trail.
func TestAdmittedPoliciesAreAudited(t *testing.T) {
	const (
		v1 = `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`
		v2 = `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/25", "ports": [5432]}, {"name": "web", "cidr": "10.3.0.0/24"}]}`
	)
	ofPlatform := func(c *corev1.ConfigMap) {
		c.Labels = map[string]string{policy.Label: platform.LabelValue}
		c.Data = map[string]string{platform.Key: `{"namespaces": {}, "allowedDestinations": []}`}
	}
	dryRun := true
	for _, test := range []struct {
		name     string
		old, new runtime.RawExtension
		dryRun   *bool
		want     string // without the fields that each entry has
	}{
		{"created", runtime.RawExtension{}, object(t, v1), nil, `{"operation": "CREATE", "newPolicy": "A", "opened": [{"to": ["10.1.0.0/24"], "ports": ["TCP 5432"]}]}`},
		{"updated", object(t, v1), object(t, v2), nil, `{"operation": "UPDATE", "oldPolicy": "A", "newPolicy": "B", "opened": [{"to": ["10.3.0.0/24"]}], "closed": [{"to": ["10.1.0.128/25"], "ports": ["TCP 5432"]}],
			"warnings": ["web opens every port and protocol; name ports to open fewer (allowedDestinations[1])"]}`},
		{"unchanged", object(t, v1), object(t, v1), nil, ``},
		{"dry run", runtime.RawExtension{}, object(t, v1), &dryRun, ``},
		{"denied", runtime.RawExtension{}, object(t, `{}`), nil, ``},
		{"label removed", object(t, v1), object(t, v1, unlabelled), nil, `{"operation": "UPDATE", "oldPolicy": "A", "closed": [{"to": ["10.1.0.0/24"], "ports": ["TCP 5432"]}]}`},
		{"an invalid one corrected", object(t, `{}`), object(t, v1), nil, `{"operation": "UPDATE", "oldPolicy": "C", "newPolicy": "A", "opened": [{"to": ["10.1.0.0/24"], "ports": ["TCP 5432"]}]}`},
		{"a platform document", runtime.RawExtension{}, object(t, v1, ofPlatform), nil, `{"operation": "CREATE", "newPolicy": "D", "unknown": "a platform document: the agent's entries show what it opens and closes"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var trail bytes.Buffer
			log := audit.NewLog(&trail, "egress-webhook", func() time.Time { return time.Unix(0, 0) })
			operation := admissionv1.Create
			if test.old.Raw != nil {
				operation = admissionv1.Update
			}
			r := request(operation, test.old, test.new)
			r.DryRun = test.dryRun
			r.UserInfo = authenticationv1.UserInfo{Username: "alice", Groups: []string{"a", "b"}}
			handler := Handler(noRanges, log, newMetrics(), slog.New(slog.DiscardHandler))
			require.Equal(t, 200, post(handler, bytes.NewReader(review(t, r))).Code)
			if test.want == "" {
				require.Empty(t, trail.String())
				return
			}
			require.Equal(t, 1, strings.Count(trail.String(), "\n"))
			var got, want map[string]any
			require.NoError(t, json.Unmarshal(trail.Bytes(), &got))
			for field, value := range map[string]any{"audit": true, "program": "egress-webhook", "event": "admitted", "namespace": r.Namespace, "name": r.Name, "user": "alice", "groups": 2.0, "time": "1970-01-01T00:00:00Z"} {
				require.Equal(t, value, got[field], field)
				delete(got, field)
			}
			digests := make(map[string]string)
			for letter, text := range map[string]string{"A": v1, "B": v2, "C": `{}`, "D": `{"namespaces": {}, "allowedDestinations": []}`} {
				digest := sha256.Sum256([]byte(text))
				digests[letter] = hex.EncodeToString(digest[:])
			}
			require.NoError(t, json.Unmarshal([]byte(test.want), &want))
			for _, field := range []string{"oldPolicy", "newPolicy"} {
				if letter, ok := want[field].(string); ok {
					want[field] = digests[letter]
				}
			}
			require.Equal(t, want, got)
		})
	}
}
