package awsranges

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func prefixes(cidrs ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, cidr := range cidrs {
		all = append(all, netip.MustParsePrefix(cidr))
	}
	return all
}

func TestAggregate(t *testing.T) {
	for _, test := range []struct {
		name     string
		in, want []netip.Prefix
	}{
		{"none", nil, nil},
		{"as documented", prefixes("10.0.2.0/23", "10.0.0.0/24", "10.0.0.0/23"), prefixes("10.0.0.0/22")},
		{"host bits", prefixes("10.0.0.9/24", "10.0.0.7/24"), prefixes("10.0.0.0/24")},
		{"no halves", prefixes("10.0.1.0/24", "10.0.2.0/24"), prefixes("10.0.1.0/24", "10.0.2.0/24")},
		{"everything", prefixes("128.0.0.0/1", "0.0.0.0/1"), prefixes("0.0.0.0/0")},
		{"cascade", prefixes("10.0.0.0/32", "10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/30", "10.0.0.8/29"), prefixes("10.0.0.0/28")},
		{"families", prefixes("::/1", "10.0.0.0/8", "8000::/1"), prefixes("10.0.0.0/8", "::/0")},
		{"last addresses", prefixes("255.255.255.255/32", "255.255.255.254/32"), prefixes("255.255.255.254/31")},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := slices.Clone(test.in)
			require.Equal(t, test.want, Aggregate(in))
			require.Equal(t, test.in, in, "the argument is left as it is")
		})
	}
}

// FuzzAggregate lets two bytes be a prefix in a space of 256 addresses, of either family, and compares
// with a bitmap of that space: the same addresses, in the fewest prefixes there can be.
func FuzzAggregate(f *testing.F) {
	f.Add([]byte{0, 24, 128, 25, 7, 32})
	f.Add([]byte{0, 31, 2, 31, 4, 30, 0x80, 33})
	f.Fuzz(func(t *testing.T, data []byte) {
		in, want := spaceOf(data)
		got := Aggregate(in)
		require.True(t, slices.IsSortedFunc(got, Compare))
		fewest := 0
		for space, bits := range want {
			fewest += fewestPrefixes(bits[:])
			for i := range bits {
				holders := 0
				for _, prefix := range got {
					require.Equal(t, prefix.Masked(), prefix)
					if prefix.Contains(at(spaces[space], byte(i))) {
						holders++
					}
				}
				require.Equal(t, bits[i], holders == 1, "address %d is in %d prefixes", i, holders)
			}
		}
		require.Len(t, got, fewest)
	})
}

// spaces are two of 256 addresses each.
var spaces = [2]netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("2001:db8::/120")}

// spaceOf reads each two bytes as a prefix in one of the spaces, and says which addresses they cover.
func spaceOf(data []byte) (all []netip.Prefix, covered [2][256]bool) {
	for ; len(data) >= 2; data = data[2:] {
		space := int(data[1]) % 2
		prefix := netip.PrefixFrom(at(spaces[space], data[0]), spaces[space].Bits()+int(data[1]/2)%9)
		all = append(all, prefix)
		for i := range covered[space] {
			covered[space][i] = covered[space][i] || prefix.Masked().Contains(at(spaces[space], byte(i)))
		}
	}
	return all, covered
}

// at is the i-th address of a space of 256.
func at(space netip.Prefix, i byte) netip.Addr {
	bytes := space.Addr().AsSlice()
	bytes[len(bytes)-1] = i
	address, _ := netip.AddrFromSlice(bytes)
	return address
}

// fewestPrefixes covers exactly the set bits: one prefix where all are set, else both halves' own.
func fewestPrefixes(bits []bool) int {
	switch {
	case !slices.Contains(bits, true):
		return 0
	case !slices.Contains(bits, false):
		return 1
	}
	return fewestPrefixes(bits[:len(bits)/2]) + fewestPrefixes(bits[len(bits)/2:])
}
