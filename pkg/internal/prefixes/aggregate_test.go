package prefixes

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/internal/prefixtest"
)

func TestAggregate(t *testing.T) {
	for _, test := range []struct {
		name     string
		in, want []netip.Prefix
	}{
		{"none", nil, nil},
		{"the documented example", prefixtest.Parse("10.0.2.0/23", "10.0.0.0/24", "10.0.0.0/23"), prefixtest.Parse("10.0.0.0/22")},
		{"host bits", prefixtest.Parse("10.0.0.9/24", "10.0.0.7/24"), prefixtest.Parse("10.0.0.0/24")},
		{"neighbours that are not siblings", prefixtest.Parse("10.0.1.0/24", "10.0.2.0/24"), prefixtest.Parse("10.0.1.0/24", "10.0.2.0/24")},
		{"everything", prefixtest.Parse("128.0.0.0/1", "0.0.0.0/1"), prefixtest.Parse("0.0.0.0/0")},
		{"cascade", prefixtest.Parse("10.0.0.0/32", "10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/30", "10.0.0.8/29"), prefixtest.Parse("10.0.0.0/28")},
		{"families", prefixtest.Parse("::/1", "10.0.0.0/8", "8000::/1"), prefixtest.Parse("10.0.0.0/8", "::/0")},
		{"last addresses", prefixtest.Parse("255.255.255.255/32", "255.255.255.254/32"), prefixtest.Parse("255.255.255.254/31")},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := slices.Clone(test.in)
			require.Equal(t, test.want, Aggregate(in))
			require.Equal(t, test.in, in, "Aggregate does not modify its argument")
		})
	}
}

// FuzzAggregate reads every two bytes as a prefix in a space of 256 addresses of either family. It compares the result
// with a bitmap of that space: the same addresses, in the fewest possible prefixes.
func FuzzAggregate(f *testing.F) {
	f.Add([]byte{0, 24, 128, 25, 7, 32})
	f.Add([]byte{0, 31, 2, 31, 4, 30, 0x80, 33})
	f.Fuzz(func(t *testing.T, data []byte) {
		in, want := prefixtest.FromBytes(data)
		got := Aggregate(in)
		require.True(t, slices.IsSortedFunc(got, Compare))
		fewest := 0
		for space, bits := range want {
			fewest += fewestPrefixes(bits[:])
			for i := range bits {
				holders := 0
				for _, prefix := range got {
					require.Equal(t, prefix.Masked(), prefix)
					if prefix.Contains(prefixtest.At(prefixtest.Spaces[space], byte(i))) {
						holders++
					}
				}
				require.Equal(t, bits[i], holders == 1, "address %d is in %d prefixes", i, holders)
			}
		}
		require.Len(t, got, fewest)
	})
}

// fewestPrefixes returns the lowest number of prefixes that cover exactly the set bits. It is 0 if no bit is set, 1 if
// all are set, and otherwise the sum of both halves.
func fewestPrefixes(bits []bool) int {
	switch {
	case !slices.Contains(bits, true):
		return 0
	case !slices.Contains(bits, false):
		return 1
	}
	return fewestPrefixes(bits[:len(bits)/2]) + fewestPrefixes(bits[len(bits)/2:])
}
