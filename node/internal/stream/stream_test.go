package stream_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/pkt-cash/pkt-cloud/node/internal/stream"
)

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	w := stream.NewWriter(&b)
	long := bytes.Repeat([]byte("x"), 2*stream.MaxFrame+1)
	if n, err := w.Pipe(stream.Stdout).Write(long); n != len(long) || err != nil {
		t.Fatal(n, err)
	}
	if err := w.WriteJSON(stream.Exit, stream.Result{ExitCode: 3}); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for {
		kind, payload, err := stream.Read(&b)
		if err != nil {
			t.Fatal(err)
		}
		if kind == stream.Exit {
			if string(payload) != `{"exit_code":3}` {
				t.Errorf("got %s", payload)
			}
			break
		}
		got = append(got, payload...)
	}
	if !bytes.Equal(got, long) {
		t.Errorf("got %d bytes back, want %d", len(got), len(long))
	}
	if _, _, err := stream.Read(&b); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// TestOversizedFrame: a payload beyond the limit is neither written nor read
// [API-9].
func TestOversizedFrame(t *testing.T) {
	if err := stream.NewWriter(io.Discard).Write(stream.Stdin, make([]byte, stream.MaxFrame+1)); err == nil {
		t.Error("an oversized frame was written")
	}
	in := bytes.NewReader(append([]byte{2, 0xff, 0xff, 0xff, 0xff}, "rest"...))
	if _, _, err := stream.Read(in); err == nil || in.Len() != 4 {
		t.Errorf("got %v with %d bytes left, want a refusal before the payload", err, in.Len())
	}
	if _, _, err := stream.Read(bytes.NewReader([]byte{2, 0, 0, 0, 9, 'x'})); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a frame cut short: %v", err)
	}
}
