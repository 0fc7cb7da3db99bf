package netstack

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// dnsPort is where the gateway answers for names.
const dnsPort = 53

// serveNames answers questions about names, on the gateway's address.
func (s *Stack) serveNames() error {
	at := fullAddress(netip.AddrPortFrom(Gateway, dnsPort))
	packets, err := gonet.DialUDP(s.stack, &at, nil, ipv4.ProtocolNumber)
	if err != nil {
		return err
	}
	streams, err := gonet.ListenTCP(s.stack, at, ipv4.ProtocolNumber)
	if err != nil {
		return errors.Join(err, packets.Close())
	}
	context.AfterFunc(s.ctx, func() {
		_ = packets.SetDeadline(time.Unix(1, 0))
		streams.Shutdown()
	})
	s.wg.Go(func() {
		defer packets.Close() //nolint:errcheck // nothing is left to do
		s.answerPackets(packets)
	})
	s.wg.Go(func() {
		defer streams.Close() //nolint:errcheck // nothing is left to do
		s.answerStreams(streams)
	})
	return nil
}

func (s *Stack) answerPackets(c *gonet.UDPConn) {
	buf := make([]byte, maxQueryBytes+1)
	for s.ctx.Err() == nil {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			pause(s.ctx, time.Millisecond)
			continue
		}
		m := s.member(addrPort(from).Addr())
		if m == nil || n > maxQueryBytes || !s.names.enter() {
			continue // as if it was lost
		}
		query := append([]byte(nil), buf[:n]...)
		s.wg.Go(func() {
			defer s.names.leave()
			if reply := s.answer(m, query, true); reply != nil {
				_, _ = c.WriteTo(reply, from)
			}
		})
	}
}

func (s *Stack) answerStreams(l *gonet.TCPListener) {
	for {
		c, err := l.Accept()
		if err != nil {
			if s.ctx.Err() != nil {
				return
			}
			pause(s.ctx, time.Millisecond)
			continue
		}
		m := s.member(addrPort(c.RemoteAddr()).Addr())
		if m == nil || !s.names.enter() {
			_ = c.Close()
			continue
		}
		s.wg.Go(func() {
			defer s.names.leave()
			defer c.Close()
			defer context.AfterFunc(m.ctx, func() { _ = c.Close() })()
			s.answerStream(m, c)
		})
	}
}

// answerStream answers the questions of one connection, which may not take
// long.
func (s *Stack) answerStream(m *member, c net.Conn) {
	_ = c.SetDeadline(now().Add(2 * queryTimeout))
	for range 16 {
		var head [2]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(head[:]))
		if n > maxQueryBytes {
			return
		}
		query := make([]byte, n)
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		reply := s.answer(m, query, false)
		if reply == nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

// question is what a container asked.
type question struct {
	id     uint16
	rd     bool
	q      dnsmessage.Question
	name   string // lower case, no dot at the end
	most   int    // bytes that the answer may have
	hasOPT bool
}

// parseQuestion accepts a query of one question and nothing else.
func parseQuestion(query []byte, packet bool) (question, bool) {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil || h.Response || h.OpCode != 0 {
		return question{}, false
	}
	all, err := p.AllQuestions()
	if err != nil || len(all) != 1 || all[0].Class != dnsmessage.ClassINET {
		return question{}, false
	}
	q := question{id: h.ID, rd: h.RecursionDesired, q: all[0], most: 1<<16 - 1}
	q.name = strings.ToLower(strings.TrimSuffix(q.q.Name.String(), "."))
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return question{}, false
	}
	if packet {
		q.most = 512
	}
	if h, err := p.AdditionalHeader(); err == nil && h.Type == dnsmessage.TypeOPT {
		q.hasOPT = true
		if packet {
			q.most = min(max(int(h.Class), 512), maxQueryBytes)
		}
	}
	return q, true
}

// answer returns the reply to a query, or nil for what is none.
func (s *Stack) answer(m *member, query []byte, packet bool) []byte {
	q, ok := parseQuestion(query, packet)
	if !ok {
		return nil
	}
	records, code := s.records(m, q)
	reply := q.reply(records, code, false)
	if len(reply) > q.most {
		reply = q.reply(nil, code, true)
	}
	return reply
}

// records finds what answers a question: names of one part are those of the
// group, others are looked up for a container that may connect to them
// [CONTAINER-54].
func (s *Stack) records(m *member, q question) ([]dnsmessage.Resource, dnsmessage.RCode) {
	if !strings.Contains(q.name, ".") {
		a, ok := s.called(q.name)
		if !ok {
			return nil, dnsmessage.RCodeNameError
		}
		if q.q.Type != dnsmessage.TypeA {
			return nil, dnsmessage.RCodeSuccess
		}
		h := dnsmessage.ResourceHeader{Name: q.q.Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 1}
		return []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: a.As4()}}}, dnsmessage.RCodeSuccess
	}
	if !m.egress.allowsName(q.name) {
		m.traffic.Refused.Add(1)
		return nil, dnsmessage.RCodeRefused
	}
	if !slices.Contains(kinds, q.q.Type) {
		return nil, dnsmessage.RCodeSuccess // of other kinds there are none
	}
	ctx, cancel := context.WithTimeout(m.ctx, 2*queryTimeout)
	defer cancel()
	records, code, err := s.names.lookup(ctx, q.q)
	if err != nil {
		return nil, dnsmessage.RCodeServerFailure
	}
	return s.sift(m, q, records), code
}

// sift takes out addresses that no container may reach, and learns the others
// [CONTAINER-53].
func (s *Stack) sift(m *member, q question, records []dnsmessage.Resource) []dnsmessage.Resource {
	var out []dnsmessage.Resource
	for _, r := range records {
		if a, ok := r.Body.(*dnsmessage.AResource); ok {
			ip := netip.AddrFrom4(a.A)
			if !s.judge.reachable(ip) {
				m.traffic.Refused.Add(1)
				continue
			}
			m.egress.learn(q.name, ip, time.Duration(r.Header.TTL)*time.Second, now())
		}
		out = append(out, r)
	}
	return out
}

// reply packs an answer.
func (q question) reply(records []dnsmessage.Resource, code dnsmessage.RCode, truncated bool) []byte {
	msg := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: q.id, Response: true, RecursionDesired: q.rd, RecursionAvailable: true, RCode: code, Truncated: truncated,
		},
		Questions: []dnsmessage.Question{q.q},
		Answers:   records,
	}
	if q.hasOPT {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(maxQueryBytes, dnsmessage.RCodeSuccess, false); err == nil {
			msg.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
		}
	}
	b, err := msg.Pack()
	if err != nil {
		return nil
	}
	return b
}
