package prefixes

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestBlocksAreMinimal checks the case in the drawing of normalize, and one case for each step of normalize.
func TestBlocksAreMinimal(t *testing.T) {
	type entry struct {
		cidr  string
		ports []PortRange
	}
	for _, test := range []struct {
		name     string
		in, want []entry
	}{
		{"the documented example",
			[]entry{{"10.0.0.0/22", tcp(443)}, {"10.0.1.0/24", tcp(443)}, {"10.0.2.0/24", tcp(443, 5432)}, {"10.0.3.0/24", tcp(5432)}},
			[]entry{{"10.0.0.0/22", tcp(443)}, {"10.0.2.0/23", tcp(5432)}}},
		{"one prefix twice", []entry{{"10.0.0.0/24", tcp(80)}, {"10.0.0.0/24", tcp(443)}}, []entry{{"10.0.0.0/24", tcp(80, 443)}}},
		{"the ports of a prefix two levels up",
			[]entry{{"10.0.0.0/8", tcp(443)}, {"10.0.0.0/16", tcp(80)}, {"10.0.0.0/24", tcp(443)}, {"10.0.0.0/32", tcp(80)}},
			[]entry{{"10.0.0.0/8", tcp(443)}, {"10.0.0.0/16", tcp(80)}}},
		{"every port covers one port", []entry{{"10.0.0.0/8", nil}, {"10.0.0.0/24", tcp(443)}}, []entry{{"10.0.0.0/8", nil}}},
		{"one port does not cover every port", []entry{{"10.0.0.0/8", tcp(443)}, {"10.0.0.0/24", nil}}, []entry{{"10.0.0.0/8", tcp(443)}, {"10.0.0.0/24", nil}}},
		{"every port stays complete", []entry{{"10.0.0.0/8", []PortRange{{"TCP", 1, 65535}}}, {"10.0.0.0/24", nil}},
			[]entry{{"10.0.0.0/8", []PortRange{{"TCP", 1, 65535}}}, {"10.0.0.0/24", nil}}},
		{"siblings merge into an existing parent",
			[]entry{{"10.0.0.0/23", tcp(80)}, {"10.0.0.0/24", tcp(443)}, {"10.0.1.0/24", tcp(443)}},
			[]entry{{"10.0.0.0/23", tcp(80, 443)}}},
		{"siblings merge into an existing parent, which merges again",
			[]entry{{"10.0.0.0/23", tcp(80)}, {"10.0.0.0/24", tcp(443)}, {"10.0.1.0/24", tcp(443)}, {"10.0.2.0/23", tcp(80, 443)}},
			[]entry{{"10.0.0.0/22", tcp(80, 443)}}},
		{"neighbours that are not siblings stay", []entry{{"10.0.1.0/24", tcp(80)}, {"10.0.2.0/24", tcp(80)}}, []entry{{"10.0.1.0/24", tcp(80)}, {"10.0.2.0/24", tcp(80)}}},
		{"two halves merge into every address", []entry{{"0.0.0.0/1", tcp(80)}, {"128.0.0.0/1", tcp(80)}}, []entry{{"0.0.0.0/0", tcp(80)}}},
		{"families do not mix", []entry{{"0.0.0.0/0", tcp(80)}, {"::/0", tcp(80)}}, []entry{{"0.0.0.0/0", tcp(80)}, {"::/0", tcp(80)}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			builder := NewBuilder(0)
			for _, e := range test.in {
				builder.Add(builder.Ports(slices.Clone(e.ports)), netip.MustParsePrefix(e.cidr))
			}
			blocks, err := builder.Set().Blocks()
			require.NoError(t, err)
			var got []entry
			for b := range blocks.All() {
				ports := b.Ports.Ranges()
				if b.Ports.IsEveryPort() {
					ports = nil
				}
				got = append(got, entry{b.Prefix.String(), ports})
			}
			require.Equal(t, test.want, got)
		})
	}
}
