package tower

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/crash"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// Put is one change of a [Store]. A nil value deletes the key.
type Put = struct {
	Key   string
	Value []byte
}

// Store keeps what must survive a crash. Keys of this package begin with
// "tower/". Apply may be called from several goroutines at once.
type Store interface {
	// Apply makes all puts durable, all or none, before it returns.
	Apply(ctx context.Context, puts []Put) error
	// Load calls fn for each key with the prefix, in ascending order of key.
	Load(ctx context.Context, prefix string, fn func(key string, value []byte) error) error
}

// keyHeld begins the store's keys of deposits; the Key in hexadecimal follows.
const keyHeld = "tower/held/"

// Config is what a Tower works with. Ledger, Store and Key are required.
type Config struct {
	Network pktchain.Network
	Ledger  settle.Ledger // with settle.CoinReader where strangers may deposit
	Store   Store
	Key     pktcloud.PrivateKey // signs receipts, and names the tower
	Quota   Quota
	// MinValue is the least capacity of a channel; zero means any.
	MinValue pktcloud.Amount
	// Admit lets the owner refuse clients; nil admits all.
	Admit func(client pktcloud.PublicKey) bool
	Log   *slog.Logger // nil: none
}

// Tower keeps deposits and broadcasts them when their time has come. Its
// methods may be called from several goroutines at once.
type Tower struct {
	cfg    Config
	self   pktcloud.PublicKey
	checks chan struct{} // a token for each deposit that is being judged

	commit sync.Mutex // held while an entry is judged and stored

	mu    sync.Mutex
	book  *Book
	tip   settle.Tip
	swept uint64 // height of the last sweep
	// followed are the deposits whose outputs the ledger follows: by then they
	// were unspent in a block, so that it needs no search to know their end.
	followed map[Key]pktcloud.ID
}

// held is how a deposit is stored.
type held struct {
	Deposit []byte           `cbor:"deposit"`
	Funding pktcloud.Amount  `cbor:"funding"`
	Levels  []pktchain.Level `cbor:"levels"`
	Since   uint64           `cbor:"since"`
	Watch   Watch            `cbor:"watch"`
}

// errStored marks a store whose records do not fit together.
var errStored = errors.New("tower: the store is damaged")

// New loads the deposits of a store. A ledger out of reach is no error, nor is a
// deposit that cannot be read: it stays in the store, and the log tells.
func New(ctx context.Context, cfg Config) (*Tower, error) {
	if cfg.Ledger == nil || cfg.Store == nil || cfg.Key.IsZero() {
		return nil, settle.Refuse(settle.ErrParams, "a tower needs a ledger, a store and a key")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	t := &Tower{
		cfg: cfg, self: cfg.Key.Public(), checks: make(chan struct{}, maxChecks),
		book: NewBook(cfg.Network, cfg.Quota, cfg.MinValue), followed: map[Key]pktcloud.ID{},
	}
	err := cfg.Store.Load(ctx, keyHeld, func(key string, value []byte) error {
		e, err := t.read(key, value)
		if err != nil { // the others need their tower all the same
			cfg.Log.Error("a deposit cannot be read and is not watched", "key", key, "err", err)
			return nil
		}
		t.book.Put(e)
		if _, ok := cfg.Ledger.(settle.CoinReader); !ok {
			t.name(e)
		}
		return nil
	})
	if err == nil {
		err = t.book.checkCounts()
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// read reads an entry as it is stored under a key.
func (t *Tower) read(key string, value []byte) (Entry, error) {
	var h held
	if err := pktcloud.Unmarshal(value, &h, 2*MaxDepositBytes); err != nil {
		return Entry{}, fmt.Errorf("%w: %w", errStored, err)
	}
	r, err := Read(t.cfg.Network, h.Deposit)
	if err != nil {
		return Entry{}, fmt.Errorf("%w: %w", errStored, err)
	}
	if key != storeKey(r.Key) || len(h.Levels) != len(r.Endings) || h.Watch.Level >= uint64(len(h.Levels)) {
		return Entry{}, errStored
	}
	return Entry{Reading: r, Funding: h.Funding, Levels: h.Levels, Since: h.Since, Watch: h.Watch}, nil
}

func storeKey(k Key) string { return keyHeld + hex.EncodeToString(k[:]) }

// Key names the tower.
func (t *Tower) Key() pktcloud.PublicKey { return t.self }

// hello is the tower's first message on a connection.
func (t *Tower) hello(nonce []byte) Hello {
	q := t.cfg.Quota.withDefaults()
	return Hello{
		Version: HelloVersion, Tower: t.self, Rail: t.cfg.Network.Rail, Nonce: nonce,
		MinValue: t.cfg.MinValue, Deposits: q.ClientDeposits, Bytes: q.ClientBytes,
	}
}

// Accept judges a deposit and keeps it, durably, before it returns a receipt
// [TOWER-9]. The same deposit again gives a receipt too. Errors are those of
// [Read] and [Book.Weigh]; [settle.ErrBusy] when the chain does not answer.
func (t *Tower) Accept(ctx context.Context, data []byte) (pktcloud.Signed[Receipt], error) {
	var none pktcloud.Signed[Receipt]
	select {
	case t.checks <- struct{}{}:
		defer func() { <-t.checks }()
	case <-ctx.Done():
		return none, ctx.Err()
	}
	r, err := Read(t.cfg.Network, data)
	if err != nil {
		return none, err
	}
	client := r.Record.Body.Client
	if t.cfg.Admit != nil && !t.cfg.Admit(client) {
		return none, settle.Refuse(settle.ErrQuota, "this tower does not serve %s", client)
	}
	tip, err := t.cfg.Ledger.Tip(ctx)
	if err != nil {
		return none, settle.Refuse(settle.ErrBusy, "the tower does not see the chain now")
	}
	t.mu.Lock()
	fresh, err := t.book.Judge(r, tip.Height)
	t.mu.Unlock()
	if err == nil && fresh {
		err = t.keep(ctx, r, tip.Height, data)
	}
	if err != nil {
		return none, err
	}
	return pktcloud.Seal(t.cfg.Key, Receipt{Version: ReceiptVersion, Tower: t.self, Client: client, Deposit: r.ID, Height: tip.Height})
}

// keep asks the chain about a deposit and makes it durable.
func (t *Tower) keep(ctx context.Context, r Reading, height uint64, data []byte) error {
	output := t.cfg.Ledger.Output
	if coins, ok := t.cfg.Ledger.(settle.CoinReader); ok { // strangers name the output [TOWER-6]
		output = coins.Unspent
	}
	funding, err := output(ctx, r.First().Funding)
	if err != nil {
		return settle.Refuse(settle.ErrBusy, "the tower does not see the chain now")
	}
	t.commit.Lock()
	defer t.commit.Unlock()
	t.mu.Lock()
	e, fresh, err := t.book.Weigh(r, height, funding)
	t.mu.Unlock()
	if err != nil || !fresh {
		return err
	}
	if err := t.store(ctx, e, data); err != nil {
		return err
	}
	t.mu.Lock()
	t.book.Put(e)
	t.mu.Unlock()
	t.name(e)
	t.cfg.Log.Info("deposit", "client", r.Record.Body.Client, "kind", r.First().Kind, "lock", r.First().LockHeight, "levels", len(e.Levels))
	return nil
}

// name tells a ledger what will be asked about.
func (t *Tower) name(e Entry) {
	t.mu.Lock()
	t.followed[e.Key] = e.ID
	t.mu.Unlock()
	if w, ok := t.cfg.Ledger.(settle.Watcher); ok {
		w.Watch(settle.Watch{At: e.First().Funding, From: e.Since})
	}
}

// store makes an entry durable; data is its deposit's encoding, nil to make it.
func (t *Tower) store(ctx context.Context, e Entry, data []byte) error {
	if data == nil {
		var err error
		if data, err = e.Record.Encode(); err != nil {
			return err
		}
	}
	value, err := pktcloud.Marshal(held{Deposit: data, Funding: e.Funding, Levels: e.Levels, Since: e.Since, Watch: e.Watch})
	if err != nil {
		return err
	}
	return t.apply(ctx, Put{Key: storeKey(e.Key), Value: value})
}

func (t *Tower) apply(ctx context.Context, p Put) error {
	crash.Point("tower store")
	if err := t.cfg.Store.Apply(ctx, []Put{p}); err != nil {
		return fmt.Errorf("tower: store: %w", err)
	}
	crash.Point("tower store")
	return nil
}

// answer returns a page of the client's own deposits [TOWER-11]. nonce is the
// one of this connection's Hello. Errors match [settle.ErrMalformed] or
// [settle.ErrProof].
func (t *Tower) answer(data, nonce []byte) (page, error) {
	q, err := ParseQuery(data)
	if err != nil {
		return page{}, err
	}
	if q.Body.Tower != t.self || string(q.Body.Nonce) != string(nonce) {
		return page{}, settle.Refuse(settle.ErrProof, "a query for another tower or connection")
	}
	t.mu.Lock()
	list, more := t.book.Page(q.Body.Client, q.Body.After)
	t.mu.Unlock()
	p := page{Version: 1, More: more}
	for _, e := range list {
		b, err := e.Record.Encode()
		if err != nil {
			return page{}, err
		}
		p.Deposits = append(p.Deposits, b)
	}
	return p, nil
}

// Status is what a tower says about a deposit that it keeps.
type Status struct {
	Client  pktcloud.PublicKey `json:"client"`
	Kind    pktchain.EndKind   `json:"kind"`
	Funding settle.Outpoint    `json:"-"`
	Lock    uint64             `json:"lock"`
	Bytes   uint64             `json:"bytes"`
	Levels  []pktchain.Level   `json:"levels"`
	Watch   Watch              `json:"-"`
	TxID    [32]byte           `json:"-"` // of the level that is sent, or of what ended the channel
}

// List returns the deposits that the tower keeps, by their keys.
func (t *Tower) List() []Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []Status
	for _, k := range t.book.Keys() {
		e, _ := t.book.Entry(k)
		s := Status{
			Client: e.Record.Body.Client, Kind: e.First().Kind, Funding: e.First().Funding, Lock: e.LockHeight(),
			Bytes: e.Bytes, Levels: e.Levels, Watch: e.Watch, TxID: e.Endings[e.Watch.Level].TxID,
		}
		if e.Watch.Ended > 0 {
			s.TxID = e.Watch.TxID
		}
		list = append(list, s)
	}
	return list
}

// Run follows the chain until ctx ends, and then returns nil: it broadcasts the
// deposits whose time has come and raises their fees. A ledger out of reach is
// asked again. Call it once.
func (t *Tower) Run(ctx context.Context) error {
	var last settle.Tip
	for ctx.Err() == nil {
		tip, err := t.wait(ctx, last)
		if err == nil {
			err = t.look(ctx, tip)
		}
		if err == nil {
			last = tip
			continue
		}
		if ctx.Err() != nil {
			break
		}
		t.cfg.Log.Warn("the tower is not up to date", "err", err)
		timer := time.NewTimer(retryPause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// Look is one round of Run, for a program that calls it by itself at each block
// and every few seconds: it asks for the best block and does for each deposit
// what its time asks. Errors match [settle.ErrLedgerUnavailable], or are the
// Store's and the context's.
func (t *Tower) Look(ctx context.Context) error {
	tip, err := t.cfg.Ledger.Tip(ctx)
	if err != nil {
		return err
	}
	return t.look(ctx, tip)
}

// wait returns at the next block, or with the same one after pollInterval: the
// mempool is looked at between blocks.
func (t *Tower) wait(ctx context.Context, last settle.Tip) (settle.Tip, error) {
	poll, cancel := context.WithTimeout(ctx, pollInterval)
	defer cancel()
	tip, err := t.cfg.Ledger.WaitTip(poll, last)
	if err != nil && poll.Err() != nil && ctx.Err() == nil {
		return t.cfg.Ledger.Tip(ctx)
	}
	return tip, err
}

// look does for each deposit what its time asks.
func (t *Tower) look(ctx context.Context, tip settle.Tip) error {
	t.mu.Lock()
	moved := t.tip != tip
	sweep := tip.Height >= t.swept+SweepBlocks || tip.Height < t.swept
	if t.tip = tip; sweep {
		t.swept = tip.Height
	}
	var live, due []Key
	for _, k := range t.book.Keys() {
		e, _ := t.book.Entry(k)
		switch fresh := e.Watch.Ended > 0 && tip.Height < e.Watch.Ended+FinalDepth; {
		case e.Live(tip.Height):
			live = append(live, k)
		case sweep, moved && fresh:
			due = append(due, k)
		}
	}
	t.mu.Unlock()
	var errs []error
	for _, k := range append(live, due...) {
		err := t.follow(ctx, k, tip.Height)
		if errs = append(errs, err); errors.Is(err, settle.ErrLedgerUnavailable) || ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// follow looks at one deposit's channel and acts.
func (t *Tower) follow(ctx context.Context, k Key, height uint64) error {
	t.mu.Lock()
	e, ok := t.book.Entry(k)
	t.mu.Unlock()
	if !ok {
		return nil
	}
	funding, err := t.view(ctx, e, height)
	if err != nil {
		return err
	}
	v := View{Height: height, Funding: funding}
	w, act := e.Next(v)
	switch act {
	case Drop:
		return t.drop(ctx, e)
	case Sleep:
		return t.set(ctx, &e, w)
	case Send:
	}
	for {
		if err := t.set(ctx, &e, w); err != nil {
			return err
		}
		err := t.send(ctx, e)
		if !errors.Is(err, settle.ErrRejected) {
			return err
		}
		if v.Funding, err = t.cfg.Ledger.Output(ctx, e.First().Funding); err != nil {
			return err
		}
		next, more := e.Contested(w, v)
		if !more {
			return nil
		}
		w = next
	}
}

// view asks the chain about a deposit's channel. Strangers chose the outputs,
// and some are old: no answer may cost a search of the chain [TOWER-6]. One that
// is not unspent in a block when a tower begins counts as spent in the best
// block, or where it was seen to be, by an unknown transaction.
func (t *Tower) view(ctx context.Context, e Entry, height uint64) (settle.Output, error) {
	at := e.First().Funding
	coins, ok := t.cfg.Ledger.(settle.CoinReader)
	if !ok {
		return t.cfg.Ledger.Output(ctx, at)
	}
	t.mu.Lock()
	followed := t.followed[e.Key] == e.ID
	t.mu.Unlock()
	if !followed {
		o, err := coins.Unspent(ctx, at)
		switch {
		case err != nil:
			return o, err
		case !o.Known && e.Watch.Ended > 0:
			return settle.Output{Known: true, Spend: &settle.Spend{TxID: e.Watch.TxID, Depth: height - min(height, e.Watch.Ended) + 1}}, nil
		case !o.Known:
			return settle.Output{Known: true, Spend: &settle.Spend{Depth: 1}}, nil
		}
		t.name(e)
	}
	return t.cfg.Ledger.Output(ctx, at)
}

// send broadcasts the level that an entry stands at.
func (t *Tower) send(ctx context.Context, e Entry) error {
	ending := e.Endings[e.Watch.Level]
	crash.Point("tower broadcast")
	err := t.cfg.Ledger.Broadcast(ctx, ending.Raw())
	if err != nil {
		t.cfg.Log.Warn("broadcast", "kind", ending.Kind, "level", e.Watch.Level, "err", err)
		return err
	}
	t.cfg.Log.Info("broadcast", "kind", ending.Kind, "level", e.Watch.Level, "fee", e.Levels[e.Watch.Level].Fee)
	return nil
}

// set makes a new Watch durable, if it differs, unless the deposit was replaced
// meanwhile.
func (t *Tower) set(ctx context.Context, e *Entry, w Watch) error {
	if e.Watch == w {
		return nil
	}
	t.commit.Lock()
	defer t.commit.Unlock()
	t.mu.Lock()
	now, ok := t.book.Entry(e.Key)
	t.mu.Unlock()
	if !ok || now.ID != e.ID {
		return nil // the next look is at the new one
	}
	e.Watch = w
	if err := t.store(ctx, *e, nil); err != nil {
		return err
	}
	t.mu.Lock()
	t.book.Put(*e)
	t.mu.Unlock()
	return nil
}

// drop forgets a deposit.
func (t *Tower) drop(ctx context.Context, e Entry) error {
	t.commit.Lock()
	defer t.commit.Unlock()
	if err := t.apply(ctx, Put{Key: storeKey(e.Key)}); err != nil {
		return err
	}
	t.mu.Lock()
	t.book.Remove(e.Key)
	delete(t.followed, e.Key)
	t.mu.Unlock()
	return nil
}
