// Command traffic makes traffic and counts it: a sender and a receiver for
// tests and benchmarks of the network of containers, without dependencies, so
// that it runs in an empty image.
//
//	traffic serve ADDRESS sink|source|echo   until it is killed
//	traffic serve ADDRESS answer             the same for datagrams, each sent back
//	traffic send ADDRESS BYTES|DURATION      prints bytes, seconds, and seconds of processor
//	traffic receive ADDRESS BYTES|DURATION
//	traffic datagrams ADDRESS COUNT SIZE [WAIT]   prints how many came back, each within half a second or WAIT
//	traffic hold ADDRESS COUNT               prints how many connections opened, and holds them until its input ends
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const chunk = 256 << 10

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return errors.New("see the source for how to use it")
	}
	switch args[0] {
	case "serve":
		return serve(args[1], args[2])
	case "send", "receive":
		return transfer(args[0] == "send", args[1], args[2])
	case "datagrams":
		if len(args) < 4 {
			return errors.New("datagrams ADDRESS COUNT SIZE [WAIT]")
		}
		wait := 500 * time.Millisecond
		if len(args) > 4 {
			var err error
			if wait, err = time.ParseDuration(args[4]); err != nil {
				return err
			}
		}
		return datagrams(args[1], args[2], args[3], wait)
	case "hold":
		return hold(args[1], args[2])
	}
	return fmt.Errorf("%q is no command", args[0])
}

func serve(at, kind string) error {
	if kind == "answer" {
		return answer(at)
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	fmt.Println("serving")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			buf := make([]byte, chunk)
			switch kind {
			case "source":
				for err == nil {
					_, err = c.Write(buf)
				}
			case "echo":
				_, _ = io.Copy(c, c)
			default:
				for err == nil {
					_, err = c.Read(buf)
				}
			}
		}()
	}
}

// answer sends each datagram back to where it came from.
func answer(at string) error {
	c, err := net.ListenPacket("udp", at)
	if err != nil {
		return err
	}
	fmt.Println("serving")
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo(buf[:n], from); err != nil {
			return err
		}
	}
}

// transfer carries an amount of bytes, or as many as go in a time.
func transfer(out bool, to, much string) error {
	c, err := net.DialTimeout("tcp", to, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	most, begun := int64(1<<62), time.Now()
	if d, err := time.ParseDuration(much); err == nil {
		_ = c.SetDeadline(begun.Add(d))
	} else if most, err = strconv.ParseInt(much, 10, 64); err != nil {
		return err
	}
	buf := make([]byte, chunk)
	var done int64
	for done < most {
		part := buf[:min(chunk, most-done)]
		var n int
		if out {
			n, err = c.Write(part)
		} else {
			n, err = c.Read(part)
		}
		done += int64(n)
		if err != nil {
			break
		}
	}
	if out && err == nil {
		_ = c.(*net.TCPConn).CloseWrite()
		_, err = io.Copy(io.Discard, c) // until all has arrived
	}
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return err
	}
	fmt.Println(done, time.Since(begun).Seconds(), time.Duration(used.Utime.Nano()+used.Stime.Nano()).Seconds())
	if ne := net.Error(nil); err == nil || errors.Is(err, io.EOF) || errors.As(err, &ne) && ne.Timeout() {
		return nil
	}
	return err
}

func datagrams(to, count, size string, wait time.Duration) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	bytesEach, err := strconv.Atoi(size)
	if err != nil {
		return err
	}
	c, err := net.Dial("udp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	data, buf := bytes.Repeat([]byte{'x'}, bytesEach), make([]byte, 1<<16)
	back := 0
	for range n {
		if _, err := c.Write(data); err != nil {
			break
		}
		_ = c.SetReadDeadline(time.Now().Add(wait))
		if m, err := c.Read(buf); err == nil && bytes.Equal(buf[:m], data) {
			back++
		}
	}
	fmt.Println(back)
	return nil
}

// hold keeps connections open until its input ends. It says how many there are
// once all were tried.
func hold(to, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var open []net.Conn
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if c, err := net.DialTimeout("tcp", to, time.Minute); err == nil {
				mu.Lock()
				defer mu.Unlock()
				open = append(open, c)
			}
		})
	}
	wg.Wait()
	fmt.Println(len(open))
	_, err = io.Copy(io.Discard, os.Stdin)
	for _, c := range open {
		err = errors.Join(err, c.Close())
	}
	return err
}
