package prefixes

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/internal/prefixtest"
)

func TestSubtract(t *testing.T) {
	for _, test := range []struct {
		name       string
		a, b, want []netip.Prefix
	}{
		{"nothing from nothing", nil, nil, nil},
		{"from nothing", nil, prefixtest.Parse("10.0.0.0/8"), nil},
		{"nothing", prefixtest.Parse("10.0.0.0/25", "10.0.0.128/25"), nil, prefixtest.Parse("10.0.0.0/24")},
		{"all", prefixtest.Parse("10.0.0.0/24"), prefixtest.Parse("10.0.0.0/8"), nil},
		{"both halves", prefixtest.Parse("10.0.0.0/24"), prefixtest.Parse("10.0.0.0/25", "10.0.0.128/25"), nil},
		{"a hole", prefixtest.Parse("10.0.0.0/30"), prefixtest.Parse("10.0.0.1/32"), prefixtest.Parse("10.0.0.0/32", "10.0.0.2/31")},
		{"elsewhere", prefixtest.Parse("10.0.0.0/24"), prefixtest.Parse("9.0.0.0/8", "10.0.1.0/24", "::/0"), prefixtest.Parse("10.0.0.0/24")},
		{"one host of everything", prefixtest.Parse("0.0.0.0/0"), prefixtest.Parse("128.0.0.0/1", "64.0.0.0/2"), prefixtest.Parse("0.0.0.0/2")},
		{"a later prefix", prefixtest.Parse("10.0.0.0/24", "10.0.2.0/24"), prefixtest.Parse("9.0.0.0/8", "10.0.2.0/25"), prefixtest.Parse("10.0.0.0/24", "10.0.2.128/25")},
		{"IPv6", prefixtest.Parse("2001:db8::/32"), prefixtest.Parse("2001:db8::/33"), prefixtest.Parse("2001:db8:8000::/33")},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, Subtract(test.a, test.b))
		})
	}
}

// FuzzSubtract compares Subtract with a bitmap of 256 addresses of either family, as FuzzAggregate does.
func FuzzSubtract(f *testing.F) {
	f.Add([]byte{0, 24, 128, 25}, []byte{7, 32})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		ofA, wantA := prefixtest.FromBytes(a)
		ofB, wantB := prefixtest.FromBytes(b)
		got := Subtract(ofA, ofB)
		require.Equal(t, Aggregate(got), got, "aggregated")
		for space := range prefixtest.Spaces {
			for i := range 256 {
				in := false
				for _, prefix := range got {
					in = in || prefix.Contains(prefixtest.At(prefixtest.Spaces[space], byte(i)))
				}
				require.Equal(t, wantA[space][i] && !wantB[space][i], in)
			}
		}
	})
}
