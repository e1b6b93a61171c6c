package prefixes

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/internal/prefixtest"
)

// FuzzCountSlots reads each three bytes as a prefix and a key, and compares with a count of the distinct keys of all
// prefixes around each.
func FuzzCountSlots(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 0, 2, 0, 16, 2, 0, 16, 3, 8, 12, 4, 8, 14, 1})
	weight := func(key byte) int { return 1 + int(key%3) }
	f.Fuzz(func(t *testing.T, data []byte) {
		keys := make(map[netip.Prefix][]byte)
		for ; len(data) >= 3; data = data[3:] {
			all, _ := prefixtest.FromBytes(data[:2])
			prefix := all[0].Masked()
			if !slices.Contains(keys[prefix], data[2]%8) {
				keys[prefix] = append(keys[prefix], data[2]%8)
			}
		}
		sorted := slices.SortedFunc(maps.Keys(keys), Compare)
		seen := 0
		for prefix, slots := range CountSlots(len(sorted), func(i int) (netip.Prefix, []byte) { return sorted[i], keys[sorted[i]] }, weight) {
			require.Equal(t, sorted[seen], prefix)
			seen++
			distinct := make(map[byte]bool)
			for outer, ofOuter := range keys {
				for _, key := range ofOuter {
					distinct[key] = distinct[key] || Contains(outer, prefix)
				}
			}
			want := 0
			for key, contained := range distinct {
				if contained {
					want += weight(key)
				}
			}
			require.Equal(t, want, slots, "%v of %v", prefix, keys)
		}
		require.Equal(t, len(sorted), seen)
	})
}
