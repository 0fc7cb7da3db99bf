//go:build files

package main

import _ "embed"

// filesProgram is container/libcontainer/fileserver, which "make build" has built
// just before.
//
//go:embed files.bin
var filesProgram []byte
