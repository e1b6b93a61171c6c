package nearest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestName(t *testing.T) {
	fields := []string{"name", "cidr", "awsService", "regions", "ports"}
	for _, test := range []struct{ name, want string }{
		{"prots", "ports"},
		{"port", "ports"},
		{"Ports", "ports"},
		{"AWSSERVICE", "awsService"},
		{"region", "regions"},
		{"cdir", "cidr"},
		{"destination", ""},
		{"", ""},
		{strings.Repeat("ports", 1000), ""},
	} {
		require.Equal(t, test.want, Name(test.name, fields), test.name)
	}
}
