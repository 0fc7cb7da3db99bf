package tower

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"sync"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// Serve answers the connections of a listener until ctx ends or the listener
// fails, and returns once all of them are over. It closes the listener.
func (t *Tower) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var wait sync.WaitGroup
	defer wait.Wait()
	slots := make(chan struct{}, maxConns)
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case slots <- struct{}{}:
			wait.Go(func() {
				defer func() { <-slots }()
				t.ServeConn(ctx, conn)
			})
		default: // full: the client asks again [TOWER-2]
			conn.Close()
		}
	}
}

// ServeConn answers one connection until it ends, and closes it. What a client
// sends is refused, one by one, with a code; after too many refusals the
// connection ends.
func (t *Tower) ServeConn(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	nonce := make([]byte, NonceBytes)
	_, _ = rand.Read(nonce) // never fails
	if err := t.reply(conn, kindHello, t.hello(nonce)); err != nil {
		return
	}
	refusals := 0
	for range maxRequests {
		if err := conn.SetReadDeadline(time.Now().Add(idleLimit)); err != nil {
			return
		}
		kind, data, err := readMessage(conn, MaxDepositBytes)
		if err != nil && !errors.Is(err, pktcloud.ErrTooLarge) {
			return
		}
		answer, body := byte(kindRefuse), any(nil)
		if err == nil {
			answer, body, err = t.request(ctx, kind, data, nonce)
		} else {
			err = settle.Refuse(settle.ErrMalformed, "%w", err)
			refusals = maxRefusals // its rest is still on the way: no next message can be found
		}
		if err != nil {
			answer, body = kindRefuse, refusalOf(err)
			refusals++
		}
		if t.reply(conn, answer, body) != nil || refusals >= maxRefusals {
			return
		}
	}
}

// request answers one message.
func (t *Tower) request(ctx context.Context, kind byte, data, nonce []byte) (answer byte, body any, err error) {
	switch kind {
	case kindDeposit:
		body, err = t.Accept(ctx, data)
		return kindReceipt, body, err
	case kindQuery:
		body, err = t.answer(data, nonce)
		return kindPage, body, err
	}
	return 0, nil, settle.Refuse(settle.ErrMalformed, "a tower knows no message of kind %d", kind)
}

func (t *Tower) reply(conn net.Conn, kind byte, body any) error {
	if err := conn.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return err
	}
	return writeMessage(conn, kind, body)
}
