package pktchain_test

import (
	"bytes"
	"testing"

	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

func seedVectors(f *testing.F, prefix string) {
	f.Helper()
	cases, err := vector.Load(vectorDir, prefix)
	if err != nil || len(cases) == 0 {
		f.Fatalf("no vectors %s*: %v", prefix, err)
	}
	for _, c := range cases {
		f.Add(c.Bytes("bytes"))
	}
}

func FuzzParsePayeeDetail(f *testing.F) {
	seedVectors(f, "payee-detail-")
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := pktchain.ParsePayeeDetail(data)
		if err != nil {
			return
		}
		if again, err := d.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %x, %v, want the input back", again, err)
		}
	})
}

func FuzzParseDetail(f *testing.F) {
	seedVectors(f, "detail-")
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := pktchain.ParseDetail(data)
		if err != nil {
			return
		}
		if again, err := d.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %x, %v, want the input back", again, err)
		}
	})
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"dpk1q99y9lgfnnzr2sx8jl7knsy9equ68xz96fl8mdq", "p9JrcB14A6d33r6UihK5PgPmL4eCDwmStJ", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, n := range pktchain.Networks() {
			script, err := n.ParseAddress(string(data))
			if err != nil {
				continue
			}
			if again, err := n.Address(script); err != nil || !bytes.Equal([]byte(again), data) {
				t.Errorf("got %q, %v, want the input back", again, err)
			}
		}
	})
}

func FuzzReadEnding(f *testing.F) {
	cases, err := vector.Load(vectorDir, "ending-")
	if err != nil || len(cases) == 0 {
		f.Fatalf("no vectors ending-*: %v", err)
	}
	for _, c := range cases {
		f.Add(c.Bytes("transaction"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := pktchain.ReadEnding(network(t), data)
		if err != nil {
			return
		}
		if !bytes.Equal(e.Raw(), data) || e.LockHeight == 0 || e.LockHeight > e.Expiry {
			t.Errorf("got %+v of %x", e, data)
		}
	})
}
