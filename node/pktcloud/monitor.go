//go:build !monitor

package main

// monitorProgram is empty in a build without "-tags monitor": containers'
// monitors are this whole program then. "make build" has the tag.
var monitorProgram []byte
