//go:build cgo && amd64

package libcontainer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// script is what the shim does before it becomes the program: system calls in
// a row, of which one may use what another returned. It is read by the C code
// in shim_amd64.go:
//
//	size, count  uint32
//	count × { nr, kinds, result, skip uint32; tolerated [2]int32; args [6]uint64 }
//	what pointers lead to
//
// All numbers are little-endian. A pointer is an offset from the script's
// begin.
type script struct {
	steps []step
	names []string // of the steps, for errors
	data  []byte
	next  uint32 // register
}

type step struct {
	NR, Kinds, Result, Skip uint32
	Tolerated               [2]int32
	Args                    [6]uint64
}

// arg is an argument of a step.
type arg struct {
	kind  uint32
	value uint64
}

const (
	argNumber = iota
	argPointer
	argRegister
)

// Bounds of the C code. Register 0 takes results that nobody uses.
const (
	maxScript    = 1<<16 - 1
	maxRegisters = 32
	stepBytes    = 4*4 + 2*4 + 6*8
)

// anyErrno tolerates every failure.
const anyErrno = unix.Errno(0xffffffff)

func num[T ~int | ~uint | ~uint32 | ~uintptr | ~uint64 | ~int64](v T) arg {
	return arg{argNumber, uint64(v)}
}

// here is the current directory for the …at calls.
var here = num(unix.AT_FDCWD)

// bytes puts data into the script.
func (s *script) bytes(b []byte) arg {
	for len(s.data)%8 != 0 {
		s.data = append(s.data, 0)
	}
	at := len(s.data)
	s.data = append(s.data, b...)
	return arg{argPointer, uint64(at)}
}

func (s *script) text(v string) arg { return s.bytes(append([]byte(v), 0)) }

// words puts numbers of 32 bits into the script.
func (s *script) words(v ...uint32) arg {
	var b []byte
	for _, w := range v {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return s.bytes(b)
}

// call adds a step; name says in an error what it does.
func (s *script) call(name string, nr uintptr, args ...arg) {
	v := step{NR: uint32(nr)}
	for i, a := range args {
		v.Kinds |= a.kind << (2 * i)
		v.Args[i] = a.value
	}
	s.steps = append(s.steps, v)
	s.names = append(s.names, name)
}

// keep returns what the last step will have returned.
func (s *script) keep() arg {
	s.next++
	s.steps[len(s.steps)-1].Result = s.next
	return arg{argRegister, uint64(s.next)}
}

// tolerate lets the last step fail in these ways; the skip steps after it are
// left out then.
func (s *script) tolerate(skip int, errnos ...unix.Errno) {
	last := &s.steps[len(s.steps)-1]
	last.Skip = uint32(skip)
	for i, e := range errnos {
		last.Tolerated[i] = int32(e)
	}
}

// encode returns the script's bytes.
func (s *script) encode() ([]byte, error) {
	if len(s.steps) == 0 || s.next >= maxRegisters {
		return nil, fmt.Errorf("a script of %d steps and %d registers", len(s.steps), s.next)
	}
	begin := uint64(8 + stepBytes*len(s.steps))
	var b bytes.Buffer
	b.Grow(int(begin) + len(s.data))
	steps := make([]step, len(s.steps))
	copy(steps, s.steps)
	for i := range steps {
		for a := range steps[i].Args {
			if steps[i].Kinds>>(2*a)&3 == argPointer {
				steps[i].Args[a] += begin
			}
		}
	}
	err := errors.Join(binary.Write(&b, binary.LittleEndian, []uint32{uint32(begin) + uint32(len(s.data)), uint32(len(steps))}), binary.Write(&b, binary.LittleEndian, steps))
	b.Write(s.data)
	if b.Len() > maxScript {
		err = errors.Join(err, fmt.Errorf("a script of %d bytes", b.Len()))
	}
	return b.Bytes(), err
}

// failure explains what the shim reported.
func (s *script) failure(report uint32) error {
	errno, at := unix.Errno(report&0xfff), int(report>>12)
	if at < 1 || at > len(s.names) {
		return fmt.Errorf("the first program failed: %w", errno)
	}
	return fmt.Errorf("%s: %w", s.names[at-1], errno)
}
