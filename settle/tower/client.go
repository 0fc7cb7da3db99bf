package tower

import (
	"bytes"
	"context"
	"errors"
	"net"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// Client talks to one tower over one connection. It is not safe for concurrent
// use.
type Client struct {
	conn    net.Conn
	key     pktcloud.PrivateKey
	network pktchain.Network
	hello   Hello
}

// Dial begins to talk to the tower at the other end of a connection, as the
// client whose key is given: pktchain.Keychain.TowerKey. want is the tower that
// it must be; the zero key takes any. The connection is closed after an error.
func Dial(ctx context.Context, conn net.Conn, n pktchain.Network, key pktcloud.PrivateKey, want pktcloud.PublicKey) (*Client, error) {
	c := &Client{conn: conn, key: key, network: n}
	err := c.during(ctx, func() error {
		kind, data, err := readMessage(conn, MaxSmallBytes)
		if err != nil {
			return err
		}
		if kind != kindHello {
			return settle.Refuse(settle.ErrMalformed, "a tower begins with hello, not with a message of kind %d", kind)
		}
		c.hello, err = ParseHello(data)
		return err
	})
	switch {
	case err != nil:
	case c.hello.Rail != n.Rail:
		err = settle.Refuse(settle.ErrParams, "the tower watches rail %q, not %q", c.hello.Rail, n.Rail)
	case want != (pktcloud.PublicKey{}) && want != c.hello.Tower:
		err = settle.Refuse(settle.ErrProof, "the tower is %s, not %s", c.hello.Tower, want)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// Hello is what the tower said of itself.
func (c *Client) Hello() Hello { return c.hello }

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// during runs fn under the deadline of ctx, and of idleLimit.
func (c *Client) during(ctx context.Context, fn func() error) error {
	end := time.Now().Add(idleLimit)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	if err := c.conn.SetDeadline(end); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err := fn()
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// ask sends a message and reads its answer, which is of a kind and a size, or a
// refusal.
func (c *Client) ask(ctx context.Context, kind byte, body any, want byte, maxBytes int) (data []byte, err error) {
	err = c.during(ctx, func() error {
		if err := writeMessage(c.conn, kind, body); err != nil {
			return err
		}
		got, answer, err := readMessage(c.conn, maxBytes)
		switch {
		case err != nil:
			return err
		case got == kindRefuse:
			r, err := parse[refuse](answer, MaxSmallBytes, "refusal")
			if err != nil {
				return err
			}
			return settle.Refuse(settle.Code(r.Code), "the tower: %s", line(r.Text)) // a tower may be hostile
		case got != want:
			return settle.Refuse(settle.ErrMalformed, "an answer of kind %d, want %d", got, want)
		}
		data = answer
		return nil
	})
	return data, err
}

// Seal makes a deposit of transactions, lowest fee first. owner is the
// signature of pktchain.Keychain.SignClient.
func Seal(key pktcloud.PrivateKey, n pktchain.Network, owner []byte, txs [][]byte) (pktcloud.Signed[Deposit], error) {
	return pktcloud.Seal(key, Deposit{Version: DepositVersion, Client: key.Public(), Rail: n.Rail, Owner: owner, Txs: txs})
}

// Deposit gives a deposit to the tower and returns its receipt, verified. The
// same deposit again is no error. Errors match the codes of package settle that
// the tower answers, or are the connection's.
func (c *Client) Deposit(ctx context.Context, d pktcloud.Signed[Deposit]) (pktcloud.Signed[Receipt], error) {
	var none pktcloud.Signed[Receipt]
	id, err := d.ID()
	if err != nil {
		return none, err
	}
	data, err := c.ask(ctx, kindDeposit, d, kindReceipt, MaxSmallBytes)
	if err != nil {
		return none, err
	}
	r, err := ParseReceipt(data)
	if err != nil {
		return none, err
	}
	if r.Body.Tower != c.hello.Tower || r.Body.Client != d.Body.Client || r.Body.Deposit != id { // [TOWER-9]
		return none, settle.Refuse(settle.ErrProof, "the receipt is for something else")
	}
	return r, nil
}

// Deposits returns what the tower keeps for this client, all of it read and
// judged as a tower does; what does not hold is left out and counted in bad.
// With an error it returns what came before. It is for a client that lost
// everything but its phrase.
func (c *Client) Deposits(ctx context.Context) (list []Reading, bad int, err error) {
	q := Query{Version: QueryVersion, Client: c.key.Public(), Tower: c.hello.Tower, Nonce: c.hello.Nonce}
	for {
		signed, err := pktcloud.Seal(c.key, q)
		if err != nil {
			return list, bad, err
		}
		data, err := c.ask(ctx, kindQuery, signed, kindPage, MaxPageBytes)
		if err != nil {
			return list, bad, err
		}
		p, err := parse[page](data, MaxPageBytes, "page")
		if err != nil {
			return list, bad, err
		}
		last := q.After
		for _, b := range p.Deposits {
			r, err := Read(c.network, b)
			if err != nil || r.Record.Body.Client != q.Client {
				bad++
				continue
			}
			if bytes.Compare(r.Key[:], last) <= 0 { // it must come to an end [TOWER-11]
				return list, bad, settle.Refuse(settle.ErrMalformed, "the tower's pages do not ascend")
			}
			last = bytes.Clone(r.Key[:])
			list = append(list, r)
		}
		if !p.More {
			return list, bad, nil
		}
		if bytes.Equal(last, q.After) || len(list) > maxRestored {
			return list, bad, settle.Refuse(settle.ErrMalformed, "the tower's pages do not end")
		}
		q.After = last
	}
}

// maxRestored bounds what a client takes from one tower.
const maxRestored = 100_000
