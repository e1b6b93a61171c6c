package policy

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each ^ in a document marks the offset that Locate must return for a problem.
func TestLocate(t *testing.T) {
	for _, test := range []struct{ name, document string }{
		{"value", `{"allowedDestinations": [{"name": "a", "cidr": ^"10.1.0.0/99", "ports": [1, ^0]}]}`},
		{"unknown field", `{"allowedDestinations": [{"name": "a", "cidr": "10.1.0.0/24", ^"prots": [1]}], ^"a \"]b": 1}`},
		{"duplicate field", `{"allowedDestinations": [{"name": "a", "cidr": ^"10.1.0.0/99", ^"cidr": "x", ^"cidr": "y"}], ^"allowedDestinations": [{}]}`},
		{"missing field", `{"allowedDestinations": [ ^{"cidr": "10.1.0.0/24"}]}`},
		{"missing list", "\n ^{}"},
		{"not an object", " ^[1]"},
		{"not JSON", "{\n\"a\": 1,^}"},
		{"truncated", `{"allowedDestinations": [^`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var want []int
			parts := strings.Split(test.document, "^")
			for i, offset := 0, 0; i < len(parts)-1; i++ {
				offset += len(parts[i])
				want = append(want, offset)
			}
			data := []byte(strings.Join(parts, ""))
			document, problems := Parse(data)
			if problems == nil {
				_, problems = Validate(document, Names{})
			}
			require.Equal(t, want, Locate(data, problems), "%v", problems)
		})
	}
}
