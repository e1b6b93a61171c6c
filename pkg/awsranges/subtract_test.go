package awsranges

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSubtract(t *testing.T) {
	for _, test := range []struct {
		name       string
		a, b, want []netip.Prefix
	}{
		{"nothing from nothing", nil, nil, nil},
		{"from nothing", nil, prefixes("10.0.0.0/8"), nil},
		{"nothing", prefixes("10.0.0.0/25", "10.0.0.128/25"), nil, prefixes("10.0.0.0/24")},
		{"all", prefixes("10.0.0.0/24"), prefixes("10.0.0.0/8"), nil},
		{"by halves", prefixes("10.0.0.0/24"), prefixes("10.0.0.0/25", "10.0.0.128/25"), nil},
		{"a hole", prefixes("10.0.0.0/30"), prefixes("10.0.0.1/32"), prefixes("10.0.0.0/32", "10.0.0.2/31")},
		{"elsewhere", prefixes("10.0.0.0/24"), prefixes("9.0.0.0/8", "10.0.1.0/24", "::/0"), prefixes("10.0.0.0/24")},
		{"one host of everything", prefixes("0.0.0.0/0"), prefixes("128.0.0.0/1", "64.0.0.0/2"), prefixes("0.0.0.0/2")},
		{"behind others", prefixes("10.0.0.0/24", "10.0.2.0/24"), prefixes("9.0.0.0/8", "10.0.2.0/25"), prefixes("10.0.0.0/24", "10.0.2.128/25")},
		{"IPv6", prefixes("2001:db8::/32"), prefixes("2001:db8::/33"), prefixes("2001:db8:8000::/33")},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, Subtract(test.a, test.b))
		})
	}
}

// FuzzSubtract compares with a bitmap of 256 addresses of either family, as FuzzAggregate does.
func FuzzSubtract(f *testing.F) {
	f.Add([]byte{0, 24, 128, 25}, []byte{7, 32})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		ofA, wantA := spaceOf(a)
		ofB, wantB := spaceOf(b)
		got := Subtract(ofA, ofB)
		require.Equal(t, Aggregate(got), got, "aggregated")
		for space := range spaces {
			for i := range 256 {
				in := false
				for _, prefix := range got {
					in = in || prefix.Contains(at(spaces[space], byte(i)))
				}
				require.Equal(t, wantA[space][i] && !wantB[space][i], in)
			}
		}
	})
}
