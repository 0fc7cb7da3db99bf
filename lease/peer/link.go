package peer

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/crash"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/session"
)

const (
	sendQueue     = 64
	writeDeadline = 10 * time.Second
	firstDeadline = 15 * time.Second
)

// link is one stream of the protocol. A goroutine writes, so that a peer that
// does not read never holds up a lease; when its queue is full the link ends.
type link struct {
	stream network.Stream
	remote pktcloud.PublicKey
	queue  chan lease.Message
	done   chan struct{}
	once   sync.Once
	wg     sync.WaitGroup
}

func newLink(s network.Stream) (*link, error) {
	remote, err := session.KeyOf(s.Conn().RemotePeer())
	if err != nil {
		return nil, err
	}
	l := &link{stream: s, remote: remote, queue: make(chan lease.Message, sendQueue), done: make(chan struct{})}
	l.wg.Go(l.write)
	return l, nil
}

// close ends the link and waits for its writer.
func (l *link) close() {
	l.end()
	l.wg.Wait()
}

func (l *link) end() {
	l.once.Do(func() {
		close(l.done)
		l.stream.Reset() //nolint:errcheck // the stream is given up
	})
}

// finish lets the queue drain before the link closes.
func (l *link) finish() {
	select {
	case l.queue <- nil:
		l.wg.Wait()
	case <-l.done:
	}
	l.close()
}

// send queues a message; it never blocks.
func (l *link) send(m lease.Message) {
	select {
	case l.queue <- m:
	case <-l.done:
	default:
		l.end()
	}
}

func (l *link) write() {
	for {
		select {
		case <-l.done:
			return
		case m := <-l.queue:
			if m == nil {
				l.stream.CloseWrite() //nolint:errcheck // the peer sees an end or a reset
				return
			}
			if err := l.writeOne(m); err != nil {
				l.end()
				return
			}
		}
	}
}

func (l *link) writeOne(m lease.Message) error {
	b, err := lease.AppendMessage(nil, m)
	if err != nil {
		return err
	}
	if err := l.stream.SetWriteDeadline(time.Now().Add(writeDeadline)); err != nil {
		return err
	}
	crash.Point("lease send " + m.MessageType())
	if err := wire.WriteFrame(l.stream, b); err != nil {
		return err
	}
	crash.Point("lease send " + m.MessageType())
	return nil
}

// read returns the next message.
func (l *link) read() (lease.Message, error) {
	b, err := wire.ReadFrame(l.stream, lease.MaxMessageBytes)
	if errors.Is(err, pktcloud.ErrTooLarge) {
		return nil, &lease.Error{Code: lease.CodeMalformed, Detail: fmt.Sprintf("a message has at most %d bytes", lease.MaxMessageBytes), Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("reading a message: %w", err)
	}
	return lease.ParseMessage(b)
}
