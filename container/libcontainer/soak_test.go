//go:build soak && linux && cgo && amd64

package libcontainer_test

func init() { rounds = 1000 }
