package image

import (
	"hash"
	"io"
	"sync"
)

// Sizes of what is read ahead: enough that neither side waits for the other at
// each file, little beside what decompressing takes.
const (
	aheadBytes  = 256 << 10
	aheadPieces = 4
)

// ahead reads from r and hashes on a goroutine of its own, so that a layer is
// decompressed while files are written. It has one reader.
type ahead struct {
	full, empty chan []byte
	stop        chan struct{}
	done        sync.WaitGroup
	rest, piece []byte
	err         error // of r; set before full is closed
}

// readAhead starts to read. The sum is of all of r once Read has returned
// io.EOF. The caller closes it before it lets go of r.
func readAhead(r io.Reader, sum hash.Hash) *ahead {
	a := &ahead{full: make(chan []byte, aheadPieces), empty: make(chan []byte, aheadPieces), stop: make(chan struct{})}
	for range aheadPieces {
		a.empty <- make([]byte, aheadBytes)
	}
	a.done.Go(func() {
		defer close(a.full)
		for a.err == nil {
			var b []byte
			select {
			case b = <-a.empty:
			case <-a.stop:
				a.err = io.ErrClosedPipe
				return
			}
			n := 0
			for n < aheadBytes && a.err == nil { // not io.ReadFull, which would hide r's own io.ErrUnexpectedEOF
				var got int
				got, a.err = r.Read(b[n:aheadBytes])
				n += got
			}
			sum.Write(b[:n])
			a.full <- b[:n]
		}
	})
	return a
}

// Read returns what is there, in order.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.piece != nil {
			a.empty <- a.piece
			a.piece = nil
		}
		b, ok := <-a.full
		if !ok {
			return 0, a.err
		}
		a.piece, a.rest = b, b
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// close ends the reading ahead, wherever it is.
func (a *ahead) close() {
	close(a.stop)
	a.done.Wait()
}
