package service

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// historyColumns are those of WriteHistory, in this order [WALLET-53].
var historyColumns = []string{
	"time", "kind", "received_units", "sent_units", "fee_units", "received_pkt", "sent_pkt", "fee_pkt",
	"height", "txid", "label", "addresses", "lease", "note",
}

// WriteHistory writes movements as CSV (RFC 4180) with a line of column names:
// times in RFC 3339 and UTC, or empty while unknown; amounts exact, in base
// units and again in PKT. Text that a spreadsheet would take for a formula gets
// an apostrophe before it [WALLET-54].
func WriteHistory(w io.Writer, moves []Movement) error {
	c := csv.NewWriter(w)
	c.UseCRLF = true
	if err := c.Write(historyColumns); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	for _, m := range moves {
		at, height := "", ""
		if m.Time > 0 {
			at = time.Unix(m.Time, 0).UTC().Format(time.RFC3339)
		}
		if m.Height > 0 {
			height = strconv.FormatUint(m.Height, 10)
		}
		row := []string{at, m.Kind}
		for _, a := range []pktcloud.Amount{m.Received, m.Sent, m.Fee} {
			row = append(row, strconv.FormatUint(uint64(a), 10))
		}
		for _, a := range []pktcloud.Amount{m.Received, m.Sent, m.Fee} {
			row = append(row, strings.TrimSuffix(a.String(), " PKT"))
		}
		row = append(row, height, m.TxID)
		for _, text := range []string{m.Label, strings.Join(m.Addresses, " "), m.Lease, m.Note} {
			row = append(row, harmless(text))
		}
		if err := c.Write(row); err != nil {
			return fmt.Errorf("write history: %w", err)
		}
	}
	c.Flush()
	if err := c.Error(); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	return nil
}

func harmless(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}

// WriteHistoryJSON writes movements as one JSON array, amounts as decimal
// strings of base units [API-10].
func WriteHistoryJSON(w io.Writer, moves []Movement) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	if err := e.Encode(moves); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	return nil
}
