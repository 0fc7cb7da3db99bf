package wire_test

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/iotest"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
)

func TestFramesComeBack(t *testing.T) {
	payloads := [][]byte{{}, {1}, bytes.Repeat([]byte{7}, 1000), make([]byte, pktcloud.MaxRecordBytes)}
	var stream bytes.Buffer
	for _, p := range payloads {
		if err := wire.WriteFrame(&stream, p); err != nil {
			t.Fatal(err)
		}
	}
	r := iotest.HalfReader(&stream)
	for _, p := range payloads {
		got, err := wire.ReadFrame(r, pktcloud.MaxRecordBytes)
		if err != nil || !bytes.Equal(got, p) {
			t.Fatalf("got %d bytes, %v, want %d", len(got), err, len(p))
		}
	}
	if _, err := wire.ReadFrame(r, 1); err != io.EOF { //nolint:errorlint // the exact value is promised
		t.Errorf("got %v at the end, want io.EOF", err)
	}
}

func TestReadFrameRefusals(t *testing.T) {
	for _, tt := range []struct {
		name, data string
		want       error
	}{
		{"nothing", "", io.EOF},
		{"half a length", "\x00\x00", io.ErrUnexpectedEOF},
		{"no payload", "\x00\x00\x00\x02", io.ErrUnexpectedEOF},
		{"half a payload", "\x00\x00\x00\x02a", io.ErrUnexpectedEOF},
		{"a byte too long", "\x00\x00\x00\x0babcdefghijk", pktcloud.ErrTooLarge},
		{"all ones", "\xff\xff\xff\xff", pktcloud.ErrTooLarge},
	} {
		if _, err := wire.ReadFrame(bytes.NewBufferString(tt.data), 10); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestLongFrameIsRefusedUnread wants no memory for a length that is refused.
func TestLongFrameIsRefusedUnread(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		r := bytes.NewBufferString("\x7f\xff\xff\xffxxxx")
		if _, err := wire.ReadFrame(r, 1<<20); !errors.Is(err, pktcloud.ErrTooLarge) || r.Len() != 4 {
			t.Fatalf("got %v with %d bytes unread, want 4", err, r.Len())
		}
	}
	if runtime.ReadMemStats(&after); after.TotalAlloc-before.TotalAlloc > 1<<20 {
		t.Errorf("got %d bytes allocated", after.TotalAlloc-before.TotalAlloc)
	}
}

// counter counts writes.
type counter struct{ writes int }

func (c *counter) Write(b []byte) (int, error) { c.writes++; return len(b), nil }

func TestWriteFrame(t *testing.T) {
	var c counter
	if err := wire.WriteFrame(&c, []byte("hello")); err != nil || c.writes != 1 {
		t.Errorf("got %d writes, %v, want 1", c.writes, err)
	}
	if err := wire.WriteFrame(&c, make([]byte, pktcloud.MaxRecordBytes+1)); !errors.Is(err, pktcloud.ErrTooLarge) || c.writes != 1 {
		t.Errorf("got %v after %d writes, want ErrTooLarge and nothing written", err, c.writes)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01a"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		payload, err := wire.ReadFrame(r, 64)
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := wire.WriteFrame(&again, payload); err != nil || !bytes.Equal(again.Bytes(), data[:len(data)-r.Len()]) {
			t.Errorf("got %x, %v, want %x", again.Bytes(), err, data[:len(data)-r.Len()])
		}
	})
}
