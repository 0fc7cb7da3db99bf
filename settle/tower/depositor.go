package tower

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// Parcel is what towers should hold of one channel now: transactions with
// rising fees, and the owner's signature that names the client.
type Parcel = struct {
	Owner []byte
	Txs   [][]byte
}

// Target is a tower to be supplied.
type Target struct {
	Name string             // an address for people, distinct among targets
	Key  pktcloud.PublicKey // the tower that it must be; zero takes any
	Dial func(ctx context.Context) (net.Conn, error)
}

// DepositorConfig is what a Depositor works with. Network, Key, Parcels and
// Store are required.
type DepositorConfig struct {
	Network pktchain.Network
	Key     pktcloud.PrivateKey // pktchain.Keychain.TowerKey
	// Parcels returns the newest parcel of each channel, such as
	// manager.Manager.Parcels.
	Parcels func(ctx context.Context) ([]Parcel, error)
	Store   Store
	Towers  []Target
	Log     *slog.Logger // nil: none
}

// Depositor keeps towers supplied: each gets the newest deposit of each channel
// and is asked again until it gave its receipt. Its methods may be called from
// several goroutines at once.
type Depositor struct {
	cfg  DepositorConfig
	wake chan struct{}

	turn sync.Mutex           // held during a round
	made map[[32]byte]Reading // by the hash of its parcel

	mu       sync.Mutex
	receipts map[string]pktcloud.ID // of the newest deposit, by target and Key
	state    map[string]Supply
}

// Supply is how a tower is supplied.
type Supply struct {
	Name     string             `json:"name"`
	Key      pktcloud.PublicKey `json:"key"`      // zero until it answered
	Receipts int                `json:"receipts"` // of the newest deposits
	Missing  int                `json:"missing"`
	Error    string             `json:"error,omitempty"` // of the last try
	// What the tower was asked to give back [TOWER-32].
	Told     bool   `json:"told"`               // it answered to the end
	Kept     int    `json:"kept"`               // deposits of this client that it showed
	Bad      int    `json:"bad"`                // what it showed that does not hold
	Withheld string `json:"withheld,omitempty"` // why it was not heard to the end
}

const (
	keyReceipt    = "tower/receipt/"
	supplyPause   = 30 * time.Second
	supplyLimit   = 2 * time.Minute // for one tower in one round
	maxTargetName = 512
)

// receiptRecord is how a receipt is stored.
type receiptRecord struct {
	Target  string                   `cbor:"target"`
	Key     Key                      `cbor:"key"`
	Receipt pktcloud.Signed[Receipt] `cbor:"receipt"`
}

// NewDepositor loads the receipts of a store.
func NewDepositor(ctx context.Context, cfg DepositorConfig) (*Depositor, error) {
	if cfg.Key.IsZero() || cfg.Parcels == nil || cfg.Store == nil {
		return nil, settle.Refuse(settle.ErrParams, "a depositor needs a key, parcels and a store")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	d := &Depositor{cfg: cfg, wake: make(chan struct{}, 1), receipts: map[string]pktcloud.ID{}, state: map[string]Supply{}}
	for i, t := range cfg.Towers {
		if t.Name == "" || len(t.Name) > maxTargetName || t.Dial == nil || slices.ContainsFunc(cfg.Towers[:i], func(o Target) bool { return o.Name == t.Name }) {
			return nil, settle.Refuse(settle.ErrParams, "each tower needs a name of its own and a way to dial it")
		}
		d.state[t.Name] = Supply{Name: t.Name, Key: t.Key}
	}
	err := cfg.Store.Load(ctx, keyReceipt, func(key string, value []byte) error {
		var r receiptRecord
		if err := pktcloud.Unmarshal(value, &r, 2*MaxSmallBytes); err != nil {
			return fmt.Errorf("%w: %s: %w", errStored, key, err)
		}
		d.receipts[placeOf(r.Target, r.Key)] = r.Receipt.Body.Deposit
		return nil
	})
	return d, err
}

func placeOf(target string, k Key) string {
	return hex.EncodeToString([]byte(target)) + "/" + hex.EncodeToString(k[:])
}

// Wake makes Run look at once: there is a new deposit.
func (d *Depositor) Wake() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Supplies returns how each tower is supplied, in the order of the config.
func (d *Depositor) Supplies() []Supply {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []Supply
	for _, t := range d.cfg.Towers {
		list = append(list, d.state[t.Name])
	}
	return list
}

// Run supplies the towers until ctx ends, and then returns nil. A tower that
// does not answer holds up no other.
func (d *Depositor) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
		case <-timer.C:
		}
		if err := d.Supply(ctx); err != nil && ctx.Err() == nil {
			d.cfg.Log.Warn("towers are not supplied", "err", err)
		}
		timer.Reset(supplyPause)
	}
}

// Supply is one round of Run: it returns once each tower was tried, with the
// errors of all.
func (d *Depositor) Supply(ctx context.Context) error {
	parcels, err := d.cfg.Parcels(ctx)
	if err != nil {
		return err
	}
	d.turn.Lock()
	defer d.turn.Unlock()
	made := make(map[[32]byte]Reading, len(parcels))
	var readings []Reading
	var errs []error
	for _, p := range parcels {
		sum := sha256.Sum256(slices.Concat(append(slices.Clone(p.Txs), p.Owner)...))
		r, ok := d.made[sum]
		if !ok {
			if r, err = d.read(p); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		made[sum] = r
		readings = append(readings, r)
	}
	d.made = made
	results := make([]error, len(d.cfg.Towers))
	var wait sync.WaitGroup
	for i, t := range d.cfg.Towers {
		wait.Go(func() { results[i] = d.supply(ctx, t, readings) })
	}
	wait.Wait()
	return errors.Join(append(errs, results...)...)
}

// read makes a deposit of a parcel and judges it as a tower does.
func (d *Depositor) read(p Parcel) (Reading, error) {
	signed, err := Seal(d.cfg.Key, d.cfg.Network, p.Owner, p.Txs)
	if err != nil {
		return Reading{}, err
	}
	b, err := signed.Encode()
	if err != nil {
		return Reading{}, err
	}
	return Read(d.cfg.Network, b)
}

// supply brings one tower up to date.
func (d *Depositor) supply(ctx context.Context, t Target, readings []Reading) error {
	var missing []Reading
	d.mu.Lock()
	for _, r := range readings {
		if d.receipts[placeOf(t.Name, r.Key)] != r.ID {
			missing = append(missing, r)
		}
	}
	d.mu.Unlock()
	var key pktcloud.PublicKey
	var err error
	left := len(missing)
	if left > 0 {
		key, left, err = d.bring(ctx, t, missing)
	}
	d.mu.Lock()
	s := d.state[t.Name]
	s.Receipts, s.Missing, s.Error = len(readings)-left, left, ""
	if key != (pktcloud.PublicKey{}) {
		s.Key = key
	}
	if err != nil {
		s.Error = err.Error()
		err = fmt.Errorf("tower %s: %w", t.Name, err)
	}
	d.state[t.Name] = s
	d.mu.Unlock()
	return err
}

// bring deposits what a tower lacks and returns how much it still does.
func (d *Depositor) bring(ctx context.Context, t Target, missing []Reading) (key pktcloud.PublicKey, left int, err error) {
	ctx, cancel := context.WithTimeout(ctx, supplyLimit)
	defer cancel()
	left = len(missing)
	// A tower hangs up after many refusals: not always on the same ones.
	rand.Shuffle(left, func(i, j int) { missing[i], missing[j] = missing[j], missing[i] })
	conn, err := t.Dial(ctx)
	if err != nil {
		return key, left, err
	}
	c, err := Dial(ctx, conn, d.cfg.Network, d.cfg.Key, t.Key)
	if err != nil {
		return key, left, err
	}
	defer c.Close() //nolint:errcheck // it is over
	key = c.Hello().Tower
	var errs []error
	for _, r := range missing {
		receipt, err := c.Deposit(ctx, r.Record)
		if err != nil {
			errs = append(errs, err)
			if _, refused := errors.AsType[*settle.Error](err); !refused {
				break // the connection is gone
			}
			continue
		}
		if err := d.keep(ctx, t, r, receipt); err != nil {
			errs = append(errs, err)
			continue
		}
		left--
	}
	return key, left, errors.Join(errs...)
}

// keep stores a receipt: the evidence that the tower took the deposit.
func (d *Depositor) keep(ctx context.Context, t Target, r Reading, receipt pktcloud.Signed[Receipt]) error {
	value, err := pktcloud.Marshal(receiptRecord{Target: t.Name, Key: r.Key, Receipt: receipt})
	if err != nil {
		return err
	}
	place := placeOf(t.Name, r.Key)
	if err := d.cfg.Store.Apply(ctx, []Put{{Key: keyReceipt + place, Value: value}}); err != nil {
		return fmt.Errorf("tower: store: %w", err)
	}
	d.mu.Lock()
	d.receipts[place] = receipt.Body.Deposit
	d.mu.Unlock()
	return nil
}
