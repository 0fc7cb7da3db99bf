package audit

import (
	"database/sql"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/settle"
	_ "modernc.org/sqlite" // the driver "sqlite"; this package is only for programs that have it anyway
)

// databaseFile is the node's store inside its data directory.
const databaseFile = "node.db"

// side is everything that one data directory holds of leases.
type side struct {
	name   string // "provider" or "tenant"
	leases map[pktcloud.ID]*journal
}

// journal is one side's records of one lease, decoded and verified one by one.
type journal struct {
	terms      lease.SignedTerms
	hasTerms   bool
	commit     lease.Commit
	hasCommit  bool
	offer      pktcloud.Signed[market.Offer]
	hasOffer   bool
	statements map[uint64]pktcloud.Signed[lease.Statement]
	disputes   map[uint64]pktcloud.Signed[lease.Dispute]
	amendments map[uint64]lease.Countersigned // by revision
	vouchers   map[uint64]pktcloud.Signed[settle.Voucher]
	successors map[uint64]settle.Params                                   // what the channel rolled into, the n-th
	rolled     map[pktcloud.ID]map[uint64]pktcloud.Signed[settle.Voucher] // vouchers of those, by channel
	closing    lease.SignedClose
	hasClose   bool
}

// readSide reads the journal of one data directory. A record that does not
// decode or verify is a finding; the others are still read.
func readSide(name, dir string, report *Report) (*side, error) {
	path := filepath.Join(dir, databaseFile)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%s is no data directory of a %s: %w", dir, name, err)
	}
	db, err := sql.Open("sqlite", "file:"+url.PathEscape(path)+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		return nil, fmt.Errorf("open the store of the %s: %w", name, err)
	}
	defer db.Close() //nolint:errcheck // only read
	rows, err := db.Query("SELECT key, value FROM kv WHERE key >= CAST('lease/' AS BLOB) AND key < CAST('lease0' AS BLOB) ORDER BY key")
	if err != nil {
		return nil, fmt.Errorf("read the store of the %s: %w", name, err)
	}
	defer rows.Close() //nolint:errcheck // only read
	s := &side{name: name, leases: map[pktcloud.ID]*journal{}}
	for rows.Next() {
		var key string
		var value []byte
		if err := rows.Scan(&key, &value); err != nil {
			return nil, fmt.Errorf("read the store of the %s: %w", name, err)
		}
		s.read(key, value, report)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the store of the %s: %w", name, err)
	}
	return s, nil
}

// read takes one record in: lease/<id>/<kind> or lease/<id>/<kind>/<n>.
func (s *side) read(key string, value []byte, report *Report) {
	parts := strings.Split(key, "/")
	raw, err := hex.DecodeString(parts[1])
	if err != nil || len(raw) != len(pktcloud.ID{}) || len(parts) < 3 {
		report.add(s.name+": key "+key, "names no lease")
		return
	}
	id := pktcloud.ID(raw)
	if s.leases[id] == nil {
		s.leases[id] = &journal{
			statements: map[uint64]pktcloud.Signed[lease.Statement]{},
			disputes:   map[uint64]pktcloud.Signed[lease.Dispute]{},
			amendments: map[uint64]lease.Countersigned{},
			vouchers:   map[uint64]pktcloud.Signed[settle.Voucher]{},
			successors: map[uint64]settle.Params{},
			rolled:     map[pktcloud.ID]map[uint64]pktcloud.Signed[settle.Voucher]{},
		}
	}
	if parts[2] == "rolled" && len(parts) == 5 { // the channel comes before the number
		parts = append(parts[:3], parts[4])
	}
	var n uint64
	if len(parts) == 4 {
		if n, err = strconv.ParseUint(parts[3], 10, 64); err != nil {
			report.add(s.name+": key "+key, "has no number")
			return
		}
	}
	if err := s.leases[id].take(parts[2], n, value, report); err != nil {
		report.add(s.subject(parts[2], n, id), "does not hold: %v", err)
	}
}

func (s *side) subject(kind string, n uint64, id pktcloud.ID) string {
	if n > 0 {
		return fmt.Sprintf("%s: %s %d of lease %s", s.name, kind, n, id)
	}
	return fmt.Sprintf("%s: %s of lease %s", s.name, kind, id)
}

// take decodes a record by its kind. The codecs verify the signature of what
// one device signed.
func (j *journal) take(kind string, n uint64, value []byte, report *Report) (err error) {
	switch kind {
	case "terms":
		j.terms, err = lease.ParseSignedTerms(value)
		j.hasTerms = err == nil
		report.Checked.Signatures += 2
	case "commit":
		var m lease.Message
		if m, err = lease.ParseMessage(value); err == nil {
			j.commit, j.hasCommit = m.(lease.Commit)
		}
	case "offer":
		j.offer, err = market.ParseOffer(value)
		j.hasOffer = err == nil
		report.Checked.Signatures++
	case "statement":
		var r pktcloud.Signed[lease.Statement]
		if r, err = lease.ParseStatement(value); err == nil && r.Body.Sequence != n {
			err = fmt.Errorf("it says sequence %d", r.Body.Sequence)
		}
		if err == nil {
			j.statements[n] = r
		}
		report.Checked.Signatures++
		report.Checked.Statements++
	case "dispute":
		var r pktcloud.Signed[lease.Dispute]
		if r, err = lease.ParseDispute(value); err == nil {
			j.disputes[n] = r
		}
		report.Checked.Signatures++
	case "amendment":
		var r lease.Countersigned
		if r, err = lease.ParseCountersigned(value); err == nil {
			j.amendments[n] = r
		}
		report.Checked.Signatures += 3
	case "successor":
		var p settle.Params
		if p, err = settle.ParseParams(value); err == nil {
			j.successors[n] = p
		}
	case "voucher", "rolled":
		var r pktcloud.Signed[settle.Voucher]
		if r, err = settle.ParseVoucher(value); err == nil && r.Body.Sequence != n {
			err = fmt.Errorf("it says sequence %d", r.Body.Sequence)
		}
		row := j.vouchers
		if err == nil && kind == "rolled" {
			if row = j.rolled[r.Body.Channel]; row == nil {
				row = map[uint64]pktcloud.Signed[settle.Voucher]{}
				j.rolled[r.Body.Channel] = row
			}
		}
		if err == nil {
			row[n] = r
		}
		report.Checked.Signatures++
		report.Checked.Vouchers++
	case "close":
		j.closing, err = lease.ParseSignedClose(value)
		j.hasClose = err == nil
	}
	return err
}
