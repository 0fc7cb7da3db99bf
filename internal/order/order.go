// Package order puts things that wait for each other in order.
package order

// Sort returns the indices 0 to n-1 so that each comes behind those that it
// waits for, and otherwise in their own order. When some wait for each other in
// a circle it returns them instead, and false. An index that is out of range
// is waited for by nobody.
func Sort(n int, waits func(i int) []int) (order []int, ok bool) {
	const (
		fresh = iota
		open
		done
	)
	state := make([]int, n)
	var path, circle []int
	var visit func(i int) bool
	visit = func(i int) bool {
		if i < 0 || i >= n || state[i] == done {
			return true
		}
		path = append(path, i)
		if state[i] == open {
			for k := len(path) - 2; k >= 0; k-- {
				if path[k] == i {
					circle = append(circle, path[k:len(path)-1]...)
					break
				}
			}
			return false
		}
		state[i] = open
		for _, w := range waits(i) {
			if !visit(w) {
				return false
			}
		}
		state[i], path = done, path[:len(path)-1]
		order = append(order, i)
		return true
	}
	for i := range n {
		if !visit(i) {
			return circle, false
		}
	}
	return order, true
}
