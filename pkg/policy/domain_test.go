package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func domainsPolicy(domains ...string) []byte {
	var items []string
	for i, domain := range domains {
		items = append(items, fmt.Sprintf(`{"name": "d%d", "domain": %q, "ports": [443]}`, i, domain))
	}
	return []byte(`{"allowedDestinations": [` + strings.Join(items, ",") + `]}`)
}

// The problems of invalid domains are in testdata/policy/invalid/domains.err.
func TestValidDomains(t *testing.T) {
	valid := []string{"example.com", "api.example.com", "*.example.com", "a_b.x--y.example.com", "1.2.3.a", "xn--bcher-kva.example", strings.Repeat("a.", 126) + "b"}
	document, problems := Parse(domainsPolicy(valid...))
	require.Empty(t, problems)
	p, problems := Validate(document, Names{})
	require.Empty(t, problems)
	for i, domain := range valid {
		require.Equal(t, domain, p.Destinations[i].Domain)
	}
	_, problems = Validate(document, Names{Domain: func(domain string) func() string {
		return func() string { return "no " + domain }
	}})
	require.Len(t, problems, len(valid))
	require.Equal(t, Problem{Message: "no example.com", Path: "allowedDestinations[0].domain"}, problems[0])
}

func TestDomainsAreLimited(t *testing.T) {
	domains := make([]string, MaxDomains+2)
	for i := range domains {
		domains[i] = fmt.Sprintf("d%d.example.com", i)
	}
	document, problems := Parse(domainsPolicy(domains[:MaxDomains]...))
	require.Empty(t, problems)
	_, problems = Validate(document, Names{})
	require.Empty(t, problems)
	document, problems = Parse(domainsPolicy(append(domains, strings.Repeat("a.", 127)+"b")...))
	require.Empty(t, problems)
	_, problems = Validate(document, Names{})
	require.Len(t, problems, 2)
	require.Contains(t, problems[0].String(), "Too many domains: at most 100 are allowed in a policy")
	require.Contains(t, problems[1].String(), "a name has at most 253 characters")
}

func TestCoversDomain(t *testing.T) {
	for _, test := range []struct {
		domain, other string
		covers        bool
	}{
		{"example.com", "example.com", true},
		{"example.com", "api.example.com", false},
		{"*.example.com", "api.example.com", true},
		{"*.example.com", "v1.api.example.com", true},
		{"*.example.com", "*.api.example.com", true},
		{"*.example.com", "*.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", "badexample.com", false},
		{"*.api.example.com", "*.example.com", false},
		{"api.example.com", "*.example.com", false},
	} {
		require.Equal(t, test.covers, CoversDomain(test.domain, test.other), "%s %s", test.domain, test.other)
	}
}
