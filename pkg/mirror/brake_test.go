package mirror

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMayDelete(t *testing.T) {
	for _, test := range []struct {
		name                  string
		owed, copies, deleted int
		want                  bool
	}{
		{"a fifth", 20, 100, 0, true},
		{"more than a fifth", 21, 100, 0, false},
		{"a fifth of what there was, in two parts", 10, 90, 10, true},
		{"more than a fifth of what there was", 11, 90, 10, false},
		{"the rest of the hour", 1, 80, 20, false},
		{"one of two", 1, 2, 0, true},
		{"the other one", 1, 1, 1, false},
		{"the only one", 1, 1, 0, true},
		{"both", 2, 2, 0, false},
		{"one of nine", 1, 9, 0, true},
		{"two of nine", 2, 9, 0, false},
		{"two of ten", 2, 10, 0, true},
		{"all that are left", 3, 3, 50, false},
		{"all", 5000, 5000, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, mayDelete(test.owed, test.copies, test.deleted))
		})
	}
}

// TestBrakeHoldsAHubThatIsEmptiedStepByStep deletes one policy of the hub every ten seconds, and counts the copies that
// are left after each hour.
func TestBrakeHoldsAHubThatIsEmptiedStepByStep(t *testing.T) {
	start := time.Date(2027, 3, 31, 12, 0, 0, 0, time.UTC)
	var entries []entry
	copies, owed := 1000, 0
	for second := 0; second < 3600; second += 10 {
		now := start.Add(time.Duration(second) * time.Second)
		owed++
		entries = recent(entries, now)
		if mayDelete(owed, copies, countOf(entries)) {
			entries = append(entries, entry{now, owed})
			copies, owed = copies-owed, 0
		}
	}
	require.Equal(t, 800, copies, "a fifth in an hour")
	require.Equal(t, 160, owed)
}

func TestRecentFollowsTheClock(t *testing.T) {
	now := time.Date(2027, 3, 31, 12, 0, 0, 0, time.UTC)
	entries := []entry{{now.Add(-2 * time.Hour), 1}, {now.Add(-time.Hour), 2}, {now.Add(-time.Hour + time.Second), 4}, {now, 8},
		{now.Add(time.Minute), 16}, {now.Add(24 * time.Hour), 32}} // the last two are from a clock that was ahead
	require.Equal(t, 4+8+16, countOf(recent(entries, now)))
}

func TestTokenNamesExactlyASet(t *testing.T) {
	a, b := &local{namespace: "a", name: "x", uid: "1", origin: "hub"}, &local{namespace: "b", name: "x", uid: "2", origin: "hub"}
	again := &local{namespace: "b", name: "x", uid: "3", origin: "hub"}
	seen := make(map[string]bool)
	for _, set := range [][]*local{{a}, {b}, {a, b}, {a, again}} {
		token := tokenOf(set)
		require.True(t, IsToken(token), token)
		require.Equal(t, token, tokenOf(set))
		seen[token] = true
	}
	require.Len(t, seen, 4)
	for _, text := range []string{"", "12345678901", "1234567890AB", "1234567890abc", "xxxxxxxxxxxx"} {
		require.False(t, IsToken(text), text)
	}
	require.Equal(t, "a/x, b/x", firstOf([]*local{a, b}))
	var many []*local
	for i := range 12 {
		many = append(many, &local{namespace: "n", name: fmt.Sprint(i)})
	}
	require.Equal(t, "n/0, n/1, n/2, n/3, n/4, n/5, n/6, n/7, n/8, n/9, and 2 more", firstOf(many))
}
