// Package spelling finds what somebody meant who wrote something else.
package spelling

// longest is the length of words beyond which nobody is asked what was meant.
const longest = 32

// Far is the distance of words that are not compared.
const Far = longest + 1

// Distance is how many letters are to be changed, added or left out to make b of
// a, [Far] where one of them is too long to ask.
func Distance(a, b string) int {
	if len(a) > longest || len(b) > longest {
		return Far
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
