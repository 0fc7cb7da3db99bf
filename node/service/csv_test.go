package service_test

import (
	"strings"
	"testing"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

// TestWriteHistory shows [WALLET-53] and [WALLET-54].
func TestWriteHistory(t *testing.T) {
	var b strings.Builder
	err := service.WriteHistory(&b, []service.Movement{
		{
			TxID: "ab", Kind: service.KindReceived, Received: 6_000_000_000_000_000_001, Height: 7, Time: 1_700_000_000,
			Label: `=HYPERLINK("http://evil")`, Addresses: []string{"dpk1a", "dpk1b"}, Note: "said \"thanks\",\nand more",
		},
		{TxID: "cd", Kind: service.KindSent, Sent: 1 << 30, Fee: 141, Label: "+1", Lease: "@x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "time,kind,received_units,sent_units,fee_units,received_pkt,sent_pkt,fee_pkt,height,txid,label,addresses,lease,note\r\n" +
		"2023-11-14T22:13:20Z,received,6000000000000000001,0,0,5587935447.692871095,0,0,7,ab,\"'=HYPERLINK(\"\"http://evil\"\")\",dpk1a dpk1b,,\"said \"\"thanks\"\",\r\nand more\"\r\n" +
		",sent,0,1073741824,141,0,1,0.000000131,,cd,'+1,,'@x,\r\n"
	if got := b.String(); got != want {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}
