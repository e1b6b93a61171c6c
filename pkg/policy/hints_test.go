package policy

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A null cidr or awsService is one problem. It must not also count as a second kind of destination.
func TestValidateIgnoresNullAsKind(t *testing.T) {
	for _, test := range []struct {
		entry string
		want  []string
	}{
		{`{"name": "a", "awsService": "s3", "cidr": null}`, []string{"allowedDestinations[0].cidr"}},
		{`{"name": "a", "awsService": null, "cidr": "10.0.0.0/8"}`, []string{"allowedDestinations[0].awsService"}},
		{`{"name": "a", "awsService": null, "cidr": null}`, []string{"allowedDestinations[0].awsService", "allowedDestinations[0].cidr"}},
		{`{"name": "a", "awsService": "s3", "cidr": 1}`, []string{"allowedDestinations[0]", "allowedDestinations[0].cidr"}},
	} {
		document, problems := Parse([]byte(`{"allowedDestinations": [` + test.entry + `]}`))
		require.Empty(t, problems)
		p, problems := Validate(document, Names{})
		require.Nil(t, p)
		var paths []string
		for _, problem := range problems {
			paths = append(paths, problem.Path)
		}
		require.Equal(t, test.want, paths, test.entry)
	}
}
