//go:build soak

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof" // in builds for the soak test only
	"os"
	"path/filepath"
	"runtime"
)

// A build for the soak test answers on a socket in the directory that
// PKTCLOUD_PROFILE names: /live collects garbage and says what remains,
// /goroutines how many there are, /debug/pprof/ where and why.
func init() {
	dir := os.Getenv("PKTCLOUD_PROFILE")
	if dir == "" {
		return
	}
	l, err := net.Listen("unix", filepath.Join(dir, fmt.Sprintf("%d.sock", os.Getpid())))
	if err != nil {
		fmt.Fprintln(os.Stderr, "no profile:", err)
		return
	}
	http.HandleFunc("/live", func(w http.ResponseWriter, _ *http.Request) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		json.NewEncoder(w).Encode(m.HeapAlloc) //nolint:errcheck // the client is gone, or reads it
	})
	http.HandleFunc("/goroutines", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(runtime.NumGoroutine()) //nolint:errcheck // the client is gone, or reads it
	})
	go http.Serve(l, nil) //nolint:errcheck // it ends with the process
}
