// Package nearest finds what a mistyped name was meant to be.
package nearest

import "strings"

// Name returns the candidate that name most likely meant: the one with the fewest single-letter
// changes (insert, delete, replace, swap of neighbours), letter case apart, at most one change for
// every three letters, or one in all for fewer. Of equally near ones the first wins. Empty when none is near.
func Name(name string, candidates []string) string {
	const longest = 64 // longer input is no typing mistake, and must not cost quadratic time
	if len(name) > longest {
		return ""
	}
	best, fewest := "", max(len(name)/3, 1)+1
	for _, candidate := range candidates {
		if changes := distance(strings.ToLower(name), strings.ToLower(candidate)); changes < fewest {
			best, fewest = candidate, changes
		}
	}
	return best
}

// distance is the optimal string alignment distance, counted in bytes.
func distance(a, b string) int {
	before, previous, current := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		current[0] = i
		for j := 1; j <= len(b); j++ {
			replace := previous[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			current[j] = min(previous[j]+1, current[j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				current[j] = min(current[j], before[j-2]+1)
			}
		}
		before, previous, current = previous, current, before
	}
	return previous[len(b)]
}
