package settle_test

import (
	"bytes"
	"testing"

	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// seed adds the encodings of the vectors whose names begin with prefix.
func seed(f *testing.F, prefix string) {
	f.Helper()
	cases, err := vector.Load("../spec/vectors/settle", prefix)
	if err != nil || len(cases) == 0 {
		f.Fatalf("no vectors %s*: %v", prefix, err)
	}
	for _, c := range cases {
		f.Add(c.Bytes("bytes"))
	}
}

func FuzzParseParams(f *testing.F) {
	seed(f, "params-")
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := settle.ParseParams(data)
		if err != nil {
			return
		}
		if again, err := p.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %x, %v, want the input back", again, err)
		}
	})
}

func FuzzParseVoucher(f *testing.F) {
	seed(f, "voucher-")
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := settle.ParseVoucher(data)
		if err != nil {
			return
		}
		if again, err := v.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %x, %v, want the input back", again, err)
		}
	})
}

func FuzzParseCloseOffer(f *testing.F) {
	seed(f, "close-offer-")
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := settle.ParseCloseOffer(data)
		if err != nil {
			return
		}
		if again, err := o.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %x, %v, want the input back", again, err)
		}
	})
}
