// Package nearest finds the known name that is closest to a mistyped one.
package nearest

// maxLength is the maximum length, in bytes, of names that are compared. A longer name is not a typing mistake,
// and its comparison would take quadratic time.
const maxLength = 64

// Name returns the candidate that needs the fewest single-letter changes to become name. A change inserts, deletes or
// replaces a letter, or swaps two neighbours. Letter case does not count. Name allows one change for every three
// letters of name, and at least one change. It returns the first of equally close candidates, or "" if no candidate is
// close enough.
func Name(name string, candidates []string) string {
	best, fewest := "", max(len(name)/3, 1)+1
	for _, candidate := range candidates {
		if changes := distance(name, candidate, fewest); changes < fewest {
			best, fewest = candidate, changes
		}
	}
	return best
}

// IsWithin reports whether at most maxChanges single-letter changes turn name into candidate. Letter case does not
// count.
func IsWithin(name, candidate string, maxChanges int) bool {
	return distance(name, candidate, maxChanges+1) <= maxChanges
}

// distance returns the optimal string alignment distance between two strings, in bytes. It returns limit if the
// distance is limit or more.
func distance(a, b string, limit int) int {
	if len(a) > maxLength || len(b) > maxLength || max(len(a)-len(b), len(b)-len(a)) >= limit {
		return limit
	}
	var rows [3][maxLength + 1]int8 // int8: a distance is at most maxLength
	beforePrevious, previous, current := &rows[0], &rows[1], &rows[2]
	for j := range len(b) + 1 {
		previous[j] = int8(j)
	}
	for i := 1; i <= len(a); i++ {
		current[0] = int8(i)
		// Cells outside the band around the diagonal exceed the limit and need no computation.
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
			otherLetter := lower(b[j-1])
			cell := previous[j-1]
			if letter != otherLetter {
				cell++
			}
			cell = min(cell, current[j-1]+1)
			if j < i+limit-1 {
				cell = min(cell, previous[j]+1)
			}
			if letter != otherLetter && i > 1 && j > 1 && letter == lower(b[j-2]) && lower(a[i-2]) == otherLetter {
				cell = min(cell, beforePrevious[j-2]+1)
			}
			current[j] = cell
			fewest = min(fewest, cell)
		}
		if int(fewest) >= limit {
			return limit
		}
		beforePrevious, previous, current = previous, current, beforePrevious
	}
	return min(int(previous[len(b)]), limit)
}

func lower(letter byte) byte {
	if 'A' <= letter && letter <= 'Z' {
		return letter + 'a' - 'A'
	}
	return letter
}
