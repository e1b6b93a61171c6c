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

func TestIsWithin(t *testing.T) {
	for _, test := range []struct {
		name, candidate string
		maxChanges      int
		want            bool
	}{
		{"amazn", "AMAZON", 1, true},
		{"maazon", "AMAZON", 1, true},
		{"amzn", "AMAZON", 1, false},
		{"amazon_s3", "AMAZON", 1, false},
		{"s3", "S3", 0, true},
		{strings.Repeat("x", 65), strings.Repeat("x", 65), 1, false},
		{"", strings.Repeat("x", 64), 64, true},
	} {
		require.Equal(t, test.want, IsWithin(test.name, test.candidate, test.maxChanges), "%s %s", test.name, test.candidate)
	}
}

// FuzzIsWithin compares IsWithin with the definition of the distance, computed in full.
func FuzzIsWithin(f *testing.F) {
	f.Add("amazn", "AMAZON", 1)
	f.Add("ab", "bca", 2)
	f.Add("us-esat-1", "us-east-1", 3)
	f.Fuzz(func(t *testing.T, a, b string, changes int) {
		if len(a) > maxLength || len(b) > maxLength || changes < 0 || changes > maxLength {
			return
		}
		a, b = asciiLower(a), asciiLower(b)
		table := make([][]int, len(a)+1)
		for i := range table {
			table[i] = make([]int, len(b)+1)
			for j := range table[i] {
				switch {
				case i == 0 || j == 0:
					table[i][j] = i + j
				case a[i-1] == b[j-1]:
					table[i][j] = table[i-1][j-1]
				default:
					table[i][j] = 1 + min(table[i-1][j-1], table[i-1][j], table[i][j-1])
					if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
						table[i][j] = min(table[i][j], 1+table[i-2][j-2])
					}
				}
			}
		}
		require.Equal(t, table[len(a)][len(b)] <= changes, IsWithin(a, b, changes))
	})
}

func asciiLower(s string) string {
	letters := []byte(s)
	for i := range letters {
		letters[i] = lower(letters[i])
	}
	return string(letters)
}

func BenchmarkName(b *testing.B) {
	candidates := strings.Fields(strings.Repeat("AMAZON CLOUDFRONT_ORIGIN_FACING DYNAMODB EC2 KINESIS_VIDEO_STREAMS WORKSPACES_GATEWAYS ", 5))
	for b.Loop() {
		Name("kinesis-video-stream", candidates)
	}
}
