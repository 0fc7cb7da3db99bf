// Package wire frames messages on a stream: a 4-byte big-endian length and
// that many bytes [ENC-9].
package wire

import (
	"encoding/binary"
	"fmt"
	"io"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// WriteFrame writes one message in a single Write.
func WriteFrame(w io.Writer, payload []byte) error {
	if len(payload) > pktcloud.MaxRecordBytes {
		return fmt.Errorf("%w: a frame of %d bytes", pktcloud.ErrTooLarge, len(payload))
	}
	frame := make([]byte, 4, 4+len(payload))
	binary.BigEndian.PutUint32(frame, uint32(len(payload)))
	_, err := w.Write(append(frame, payload...))
	return err
}

// ReadFrame reads one message of at most maxBytes. A longer one is refused
// before anything is allocated for it, with an error matching
// [pktcloud.ErrTooLarge]; a stream that ends between messages gives io.EOF,
// inside one io.ErrUnexpectedEOF.
func ReadFrame(r io.Reader, maxBytes int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if uint64(n) > uint64(maxBytes) {
		return nil, fmt.Errorf("%w: a frame of %d bytes, at most %d", pktcloud.ErrTooLarge, n, maxBytes)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return payload, nil
}
