package order_test

import (
	"slices"
	"testing"

	"github.com/pkt-cash/pkt-cloud/internal/order"
)

func TestSort(t *testing.T) {
	for _, c := range []struct {
		name  string
		waits [][]int
		want  []int
		ok    bool
	}{
		{"nothing", nil, nil, true},
		{"as they are", [][]int{nil, nil, nil}, []int{0, 1, 2}, true},
		{"backwards", [][]int{{1}, {2}, nil}, []int{2, 1, 0}, true},
		{"a diamond", [][]int{{1, 2}, {3}, {3}, nil}, []int{3, 1, 2, 0}, true},
		{"itself", [][]int{{0}}, []int{0}, false},
		{"a circle behind another", [][]int{{1}, {2}, {1}}, []int{1, 2}, false},
		{"out of range", [][]int{{7, -1}}, []int{0}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := order.Sort(len(c.waits), func(i int) []int { return c.waits[i] })
			if ok != c.ok || !slices.Equal(got, c.want) {
				t.Errorf("got %v, %t, want %v, %t", got, ok, c.want, c.ok)
			}
		})
	}
}
