//go:build linux && cgo && amd64

package gvisor

// Bundle lets tests run runsc by itself on what the driver gives it.
var (
	Bundle    = bundle
	WriteJSON = writeJSON
)
