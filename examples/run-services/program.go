package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// port is where web listens, inside and on this machine.
const port = 18080

var limits = container.Limits{MilliCPU: 1000, MemoryBytes: 256 << 20, DiskBytes: 16 << 20, Pids: 64}

// What runs in the containers is this program too.
func init() {
	switch os.Args[len(os.Args)-1] {
	case "db":
		serve(1, func(c net.Conn) error {
			f := must(os.OpenFile("/data/visits", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600))
			defer f.Close()
			must(f.WriteString("."))
			_, err := fmt.Fprintln(c, "visit", must(f.Stat()).Size())
			return err
		})
	case "web":
		serve(port, func(c net.Conn) error {
			db, err := net.Dial("tcp", "db:1")
			if err == nil {
				_, err = io.Copy(c, db)
			}
			return err
		})
	}
}

// visit asks web until it has answered so often, and shows what it says.
func visit(times int) {
	for n := 0; n < times; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port)); err == nil {
			answered, _ := io.Copy(os.Stdout, c)
			n += min(1, int(answered))
			c.Close()
		}
	}
}

func serve(port int, answer func(net.Conn) error) {
	l := must(net.Listen("tcp", fmt.Sprint(":", port)))
	for {
		c := must(l.Accept())
		_ = answer(c) // who asked sees that nothing came
		c.Close()
	}
}
