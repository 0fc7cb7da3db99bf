package pktd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// MaxNoticeBytes bounds one message of a node that tells of its blocks.
	MaxNoticeBytes = 1 << 16
	// quietPoll is how often WaitTip asks although the node tells of blocks.
	quietPoll = 15 * time.Second
	// noticeGap is the least time between two notices that count: a node that
	// floods them is asked no more often.
	noticeGap    = 50 * time.Millisecond
	noticePing   = 20 * time.Second
	noticeSilent = 3 * noticePing // without a word or an answer to a ping: over
	handshake    = 10 * time.Second
	minRedial    = 500 * time.Millisecond
	maxRedial    = 2 * time.Minute
)

// bell wakes those that wait for a block.
type bell struct {
	live atomic.Bool // the node tells of blocks

	mu   sync.Mutex
	next chan struct{} // closed at the next ring; nil while nobody waits
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// Announced returns a channel that is closed when the node next tells of a block.
// Only while Run runs it does.
func (d *Driver) Announced() <-chan struct{} {
	d.bell.mu.Lock()
	defer d.bell.mu.Unlock()
	if d.bell.next == nil {
		d.bell.next = make(chan struct{})
	}
	return d.bell.next
}

// Run lets the node tell of new blocks over a websocket, so that WaitTip returns
// at once, and connects again when it breaks; a node without one is asked every
// PollInterval as before. What is told is only a reason to ask [LEDGER-49]. Run
// returns when ctx ends, without an error.
func (d *Driver) Run(ctx context.Context) error {
	for wait := minRedial; ; wait = min(2*wait, maxRedial) {
		subscribed, _ := d.listen(ctx) // what is wrong with the node, questions tell
		d.bell.live.Store(false)
		if subscribed {
			wait = minRedial
			d.bell.ring() // whoever waits asks more often from now on
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// listen hears the node until the connection ends.
func (d *Driver) listen(ctx context.Context) (subscribed bool, err error) {
	conn, err := d.rpc.dial(ctx)
	if err != nil {
		return false, err
	}
	over := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		ping := time.NewTicker(noticePing)
		defer ping.Stop()
		for {
			select {
			case <-ctx.Done():
				_ = conn.Close() // ends the reading below
				return
			case <-over:
				return
			case <-ping.C: // one that fails shows by the silence
				_ = conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(handshake))
			}
		}
	})
	defer func() {
		close(over)
		watching.Wait()
		_ = conn.Close() // it is over in any case
	}()
	conn.SetReadLimit(MaxNoticeBytes)
	alive := func(string) error { return conn.SetReadDeadline(time.Now().Add(noticeSilent)) }
	conn.SetPongHandler(alive)
	question := map[string]any{"jsonrpc": "1.0", "id": d.rpc.id.Add(1), "method": "notifyblocks", "params": []any{}}
	if err := errors.Join(alive(""), conn.SetWriteDeadline(time.Now().Add(handshake)), conn.WriteJSON(question)); err != nil {
		return false, err
	}
	var last time.Time
	for {
		_, text, err := conn.ReadMessage()
		if err != nil {
			return subscribed, err
		}
		if err := alive(""); err != nil {
			return subscribed, err
		}
		var said struct {
			Method string     `json:"method"`
			Error  *nodeError `json:"error"`
		}
		if err := json.Unmarshal(text, &said); err != nil {
			return subscribed, fmt.Errorf("not a JSON-RPC message: %w", err)
		}
		switch {
		case said.Error != nil:
			return subscribed, said.Error
		case said.Method == "": // the answer: what came before it was missed
			subscribed = true
			d.bell.live.Store(true)
		case said.Method != "blockconnected" && said.Method != "blockdisconnected":
			continue
		}
		if err := pauseUntil(ctx, last.Add(noticeGap)); err != nil {
			return subscribed, err
		}
		last = time.Now()
		d.bell.ring()
	}
}

func pauseUntil(ctx context.Context, at time.Time) error {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// dial opens a websocket to the node, with the same password and certificate as
// its questions.
func (c *client) dial(ctx context.Context) (*websocket.Conn, error) {
	u, err := url.Parse(c.url)
	if err != nil {
		return nil, err
	}
	u.Scheme = map[string]string{"http": "ws", "https": "wss"}[u.Scheme]
	u.Path = "/ws"
	user, password, err := c.login()
	if err != nil {
		return nil, err
	}
	req := http.Request{Header: http.Header{}}
	req.SetBasicAuth(user, password)
	dialer := websocket.Dialer{HandshakeTimeout: handshake, TLSClientConfig: c.tls}
	conn, resp, err := dialer.DialContext(ctx, u.String(), req.Header)
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close() // gorilla has read of it what it wants
	}
	return conn, err
}
