package manager_test

import (
	"errors"
	"flag"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

var update = flag.Bool("update", false, "write the vectors anew")

// TestResumeVectors makes the messages of /pktcloud/resume/1, compares them with
// the files, and answers what the files ask.
func TestResumeVectors(t *testing.T) {
	encode := func(v any) []byte {
		t.Helper()
		b, err := pktcloud.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var made []vector.Case
	add := func(name, expect, about string, v any) {
		made = append(made, vector.New(name, expect, about).With("bytes", encode(v)))
	}
	ask := func(change func(a *manager.ResumeAsk)) manager.ResumeAsk {
		a := manager.ResumeAsk{Version: 1, Funding: settle.Outpoint{TxID: [32]byte{1, 2, 3}, Index: 1}, Proof: []byte{0x30, 6, 2, 1, 1, 2, 1, 1}}
		change(&a)
		return a
	}
	shown := func(change func(s *manager.Shown)) manager.Shown {
		s := manager.Shown{Version: 1, Params: []byte{0xa0}, Funding: []byte{2, 0, 0, 0}, Voucher: []byte{0xa0}}
		change(&s)
		return s
	}
	add("ask-good", "ok", "a question for a channel", ask(func(*manager.ResumeAsk) {}))
	add("ask-version", "malformed", "an unknown version", ask(func(a *manager.ResumeAsk) { a.Version = 2 }))
	add("ask-no-proof", "malformed", "no signature", ask(func(a *manager.ResumeAsk) { a.Proof = nil }))
	add("ask-long-proof", "malformed", "a signature of 73 bytes", ask(func(a *manager.ResumeAsk) { a.Proof = make([]byte, manager.MaxResumeProof+1) }))
	add("ask-long-close", "malformed", "a close offer that is too long", ask(func(a *manager.ResumeAsk) { a.Close = make([]byte, settle.MaxCloseOfferBytes+1) }))
	add("shown-good", "ok", "a channel that is shown, its parts not judged", shown(func(*manager.Shown) {}))
	add("shown-version", "malformed", "an unknown version", shown(func(s *manager.Shown) { s.Version = 0 }))
	add("shown-long-funding", "malformed", "a funding transaction that is too long", shown(func(s *manager.Shown) { s.Funding = make([]byte, pktchain.MaxFundingBytes+1) }))
	refused := func(name, expect, about string, refusal error) {
		b, err := manager.RefusalBytes(refusal)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, vector.New("refused-"+name, expect, about).With("bytes", b))
	}
	_, none := newWorld(t).payer.m.Status(t.Context(), pktcloud.ID{7})
	refused("unknown-channel", "unknown-channel", "an answer about a channel that is not here", none)
	refused("busy", "busy", "what has no code is the other side's own trouble", errors.New("disk full"))
	refused("long-text", "fee", "a longer text is sent shortened", settle.Refuse(settle.ErrFee, "%s", strings.Repeat("x", 2*manager.MaxLateText)))
	refused("no-code", "malformed", "code 0 is no refusal", settle.Refuse(0, ""))
	made = append(made,
		vector.New("refused-kind", "malformed", "an answer of a kind that is none").With("bytes", []byte{9}),
		vector.New("refused-empty", "malformed", "an answer of no bytes").With("bytes", []byte{}))
	cases, err := vector.Sync("../../spec/vectors/resume", "", made, *update)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			var err error
			switch kind, _, _ := strings.Cut(c.Name, "-"); kind {
			case "ask":
				_, err = manager.ParseResumeAsk(c.Bytes("bytes"))
			case "shown":
				_, err = manager.ParseShown(c.Bytes("bytes"))
			case "refused":
				err = manager.Refused(c.Bytes("bytes"))
			}
			got := "ok"
			if refusal, ok := errors.AsType[*settle.Error](err); ok {
				got = refusal.Code.String()
			} else if err != nil {
				t.Fatalf("got %v, which is no refusal", err)
			}
			if want := c.Value("expect"); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}
