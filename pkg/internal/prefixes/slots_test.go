package prefixes

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/internal/prefixtest"
)

// FuzzCountSlots reads every three bytes as a prefix and a key. It compares CountSlots with a count of the distinct
// keys of each prefix and of the prefixes that contain it.
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
		count := 0
		for prefix, slots := range CountSlots(len(sorted), func(i int) (netip.Prefix, []byte) { return sorted[i], keys[sorted[i]] }, weight) {
			require.Equal(t, sorted[count], prefix)
			count++
			distinct := make(map[byte]bool)
			for outer, outerKeys := range keys {
				for _, key := range outerKeys {
					distinct[key] = distinct[key] || Contains(outer, prefix)
				}
			}
			want := 0
			for key, isContained := range distinct {
				if isContained {
					want += weight(key)
				}
			}
			require.Equal(t, want, slots, "%v of %v", prefix, keys)
		}
		require.Equal(t, len(sorted), count)
	})
}
