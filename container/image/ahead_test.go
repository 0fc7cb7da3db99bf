package image

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

// What is read ahead is what is there, in order, with the source's own error,
// and the sum is of all of it.
func TestReadAhead(t *testing.T) {
	data := make([]byte, 3*aheadPieces*aheadBytes+777)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(data)
	for _, size := range []int{0, 1, aheadBytes - 1, aheadBytes, aheadBytes + 1, len(data)} {
		for name, source := range map[string]io.Reader{
			"whole":  bytes.NewReader(data[:size]),
			"halves": iotest.HalfReader(bytes.NewReader(data[:size])),
			"eof":    iotest.DataErrReader(bytes.NewReader(data[:size])),
		} {
			sum := sha256.New()
			a := readAhead(source, sum)
			got, err := io.ReadAll(a)
			a.close()
			if err != nil || !bytes.Equal(got, data[:size]) {
				t.Errorf("%s: got %d bytes, %v; want %d", name, len(got), err, size)
			}
			if want := sha256.Sum256(data[:size]); !bytes.Equal(sum.Sum(nil), want[:]) {
				t.Errorf("%s: the sum of %d bytes is another", name, size)
			}
		}
	}
	cut := io.MultiReader(bytes.NewReader(data[:aheadBytes+5]), iotest.ErrReader(io.ErrUnexpectedEOF))
	a := readAhead(cut, sha256.New())
	got, err := io.ReadAll(a)
	a.close()
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(got) != aheadBytes+5 {
		t.Errorf("got %d bytes, %v; want %d and the source's error", len(got), err, aheadBytes+5)
	}
	// A reader that leaves early does not leave the goroutine behind.
	for range 20 {
		a := readAhead(bytes.NewReader(data), sha256.New())
		if _, err := io.ReadFull(a, make([]byte, 10)); err != nil {
			t.Error(err)
		}
		a.close()
	}
}
