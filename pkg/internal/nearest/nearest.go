// Package nearest finds what a mistyped name was meant to be.
package nearest

// longest is the length up to which names are compared. Longer input is no typing mistake, and must not
// cost quadratic time.
const longest = 64

// Name returns the candidate that name most likely meant: the one with the fewest single-letter
// changes (insert, delete, replace, swap of neighbours), letter case apart, at most one change for
// every three letters, or one in all for fewer. Of equally near ones the first wins. Empty when none is near.
func Name(name string, candidates []string) string {
	best, fewest := "", max(len(name)/3, 1)+1
	for _, candidate := range candidates {
		if changes := distance(name, candidate, fewest); changes < fewest {
			best, fewest = candidate, changes
		}
	}
	return best
}

// Within reports whether at most that many single-letter changes, letter case apart, make name into meant.
func Within(name, meant string, changes int) bool {
	return distance(name, meant, changes+1) <= changes
}

// distance is the optimal string alignment distance, counted in bytes, or limit if it is not below that.
func distance(a, b string, limit int) int {
	if len(a) > longest || len(b) > longest || max(len(a)-len(b), len(b)-len(a)) >= limit {
		return limit
	}
	var rows [3][longest + 1]int8 // a distance is at most longest
	before, previous, current := &rows[0], &rows[1], &rows[2]
	for j := range len(b) + 1 {
		previous[j] = int8(j)
	}
	for i := 1; i <= len(a); i++ {
		current[0] = int8(i)
		// A cell further from the diagonal than the limit is above it.
		//
		//	   b →
		//	a  ███······
		//	↓  ████·····   limit 3
		//	   █████····
		//	   ·█████···
		first, last := max(1, i-limit+1), min(len(b), i+limit-1)
		if first > 1 {
			current[first-1] = int8(limit)
		}
		letter, fewest := lower(a[i-1]), current[first-1]
		for j := first; j <= last; j++ {
			other := lower(b[j-1])
			cell := previous[j-1]
			if letter != other {
				cell++
			}
			cell = min(cell, current[j-1]+1)
			if j < i+limit-1 {
				cell = min(cell, previous[j]+1)
			}
			if letter != other && i > 1 && j > 1 && letter == lower(b[j-2]) && lower(a[i-2]) == other {
				cell = min(cell, before[j-2]+1)
			}
			current[j] = cell
			fewest = min(fewest, cell)
		}
		if int(fewest) >= limit {
			return limit
		}
		before, previous, current = previous, current, before
	}
	return min(int(previous[len(b)]), limit)
}

func lower(letter byte) byte {
	if 'A' <= letter && letter <= 'Z' {
		return letter + 'a' - 'A'
	}
	return letter
}
