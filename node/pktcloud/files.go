//go:build !files

package main

// filesProgram is empty in a build without "-tags files": a provider serves no files
// then. "make build" has the tag.
var filesProgram []byte
