// Command fileserver speaks SFTP on standard input and output. A runtime runs it
// inside a container, as the user and under the limits and the filter of the
// container's own programs, so that it can do to files what those can and nothing
// else [CONTAINER-130].
//
// "make build" makes it, static and without symbols, and puts it into pktcloud.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/pkg/sftp"
)

func main() {
	runtime.GOMAXPROCS(1) // threads count against the container's limit of processes
	server, err := sftp.NewServer(stdio{os.Stdin, os.Stdout})
	if err == nil {
		err = server.Serve()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "fileserver:", err)
		os.Exit(1)
	}
}

// stdio is standard input and output as one.
type stdio struct {
	io.Reader
	io.WriteCloser
}
