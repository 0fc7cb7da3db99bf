package netstack

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/net/dns/dnsmessage"
)

// resolver asks the machine's own name servers. A question is made anew, never
// passed on, and an answer is read and made anew.
type resolver struct {
	servers []netip.AddrPort
	places  chan struct{}
}

// enter takes one of the places, if there is one.
func (r resolver) enter() bool {
	select {
	case r.places <- struct{}{}:
		return true
	default:
		return false
	}
}

func (r resolver) leave() { <-r.places }

// kinds are the records that containers may ask for; of others there are none.
var kinds = []dnsmessage.Type{
	dnsmessage.TypeA, dnsmessage.TypeCNAME, dnsmessage.TypeMX, dnsmessage.TypeNS,
	dnsmessage.TypeSRV, dnsmessage.TypeTXT, dnsmessage.TypePTR, dnsmessage.TypeSOA,
}

var errNoAnswer = errors.New("no name server answered")

// lookup returns at most maxRecords records that answer a question.
func (r resolver) lookup(ctx context.Context, q dnsmessage.Question) ([]dnsmessage.Resource, dnsmessage.RCode, error) {
	var id [2]byte
	for _, server := range r.servers {
		_, _ = rand.Read(id[:])
		msg := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: binary.BigEndian.Uint16(id[:]), RecursionDesired: true},
			Questions: []dnsmessage.Question{q},
		}
		var opt dnsmessage.ResourceHeader
		if err := opt.SetEDNS0(maxQueryBytes, dnsmessage.RCodeSuccess, false); err != nil {
			return nil, 0, err
		}
		msg.Additionals = []dnsmessage.Resource{{Header: opt, Body: &dnsmessage.OPTResource{}}}
		query, err := msg.Pack()
		if err != nil {
			return nil, 0, err
		}
		for _, network := range []string{"udp", "tcp"} {
			reply, err := ask(ctx, network, server, query)
			if err != nil {
				break
			}
			records, code, whole, err := readReply(reply, msg.ID, q)
			if err == nil && (whole || network == "tcp") {
				return records, code, nil
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, 0, errNoAnswer
}

// ask sends a query and returns what comes back.
func ask(ctx context.Context, network string, server netip.AddrPort, query []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	if network == "tcp" {
		query = append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
	}
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	if network == "tcp" {
		var head [2]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return nil, err
		}
		reply := make([]byte, binary.BigEndian.Uint16(head[:]))
		_, err = io.ReadFull(c, reply)
		return reply, err
	}
	buf := make([]byte, 4<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if n > 2 && buf[0] == query[0] && buf[1] == query[1] {
			return buf[:n], nil
		}
	}
}

// readReply takes the records out of an answer. It is whole unless cut to fit
// a packet.
func readReply(reply []byte, id uint16, q dnsmessage.Question) (records []dnsmessage.Resource, code dnsmessage.RCode, whole bool, err error) {
	var p dnsmessage.Parser
	h, err := p.Start(reply)
	if err != nil {
		return nil, 0, false, err
	}
	asked, err := p.AllQuestions()
	if err != nil {
		return nil, 0, false, err
	}
	if h.ID != id || !h.Response || len(asked) != 1 || asked[0].Type != q.Type || asked[0].Class != q.Class || !sameName(asked[0].Name, q.Name) {
		return nil, 0, false, errors.New("the answer to another question")
	}
	if h.RCode != dnsmessage.RCodeSuccess && h.RCode != dnsmessage.RCodeNameError {
		return nil, 0, false, errNoAnswer
	}
	for len(records) < maxRecords {
		r, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return nil, 0, false, err
		}
		if slices.Contains(kinds, r.Type) {
			full, err := p.Answer()
			if err != nil {
				return nil, 0, false, err
			}
			if full.Header.Class == dnsmessage.ClassINET {
				records = append(records, full)
			}
		} else if err := p.SkipAnswer(); err != nil {
			return nil, 0, false, err
		}
	}
	return records, h.RCode, !h.Truncated, nil
}

// sameName compares names as DNS does.
func sameName(a, b dnsmessage.Name) bool {
	if a.Length != b.Length {
		return false
	}
	for i := range a.Length {
		if lower(a.Data[i]) != lower(b.Data[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
