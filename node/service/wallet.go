package service

import (
	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// Balance is a wallet's money. Reserved is locked in channels, Frozen was set
// aside by the owner; neither is part of Spendable.
type Balance struct {
	Spendable   pktcloud.Amount `json:"spendable" doc:"confirmed and free"`
	Unconfirmed pktcloud.Amount `json:"unconfirmed" doc:"on its way, or change that awaits a block"`
	Reserved    pktcloud.Amount `json:"reserved" doc:"locked in channels"`
	Frozen      pktcloud.Amount `json:"frozen" doc:"in coins that the owner set aside"`
	Height      uint64          `json:"height" doc:"of the best block known"`
	Network     string          `json:"network"`
	Locked      bool            `json:"locked" doc:"nothing can be paid until the wallet is unlocked"`
}

// AddressRequest asks for an address of an account. The label is kept beside
// it.
type AddressRequest struct {
	Account uint32 `json:"account,omitempty"`
	Label   string `json:"label,omitempty" maxLength:"256"`
}

// Address is a receiving address.
type Address struct {
	Address string `json:"address"`
}

// HistoryQuery chooses transactions, newest first: Limit of them (zero: all)
// after the first Skip, or only the one that TxID names.
type HistoryQuery struct {
	Skip  int    `json:"skip,omitempty"`
	Limit int    `json:"limit,omitempty"`
	TxID  string `json:"txid,omitempty"`
}

// Kinds of a [Movement].
const (
	KindReceived      = "received"
	KindSent          = "sent"
	KindMoved         = "moved" // within the wallet
	KindChannelOpened = "channel-opened"
	KindChannelEnded  = "channel-ended"
)

// Movement is a transaction that touched the wallet. What the wallet held
// before, plus Received, less Sent and Fee, is what it held afterwards.
type Movement struct {
	TxID        string          `json:"txid"`
	Kind        string          `json:"kind" enum:"received,sent,moved,channel-opened,channel-ended"`
	Received    pktcloud.Amount `json:"received"`
	Sent        pktcloud.Amount `json:"sent" doc:"without the fee"`
	Fee         pktcloud.Amount `json:"fee" doc:"that this wallet paid to the miner"`
	Height      uint64          `json:"height" doc:"of its block; 0 while it waits for one"`
	Depth       uint64          `json:"depth" doc:"confirmations"`
	Time        int64           `json:"time" doc:"of its block, Unix seconds; 0 while it waits for one"`
	Label       string          `json:"label,omitempty" doc:"the owner's"`
	Addresses   []string        `json:"addresses" doc:"where the money went, or where it arrived"`
	Channel     string          `json:"channel,omitempty" doc:"id of the channel that it opened or ended"`
	Lease       string          `json:"lease,omitempty" doc:"label of the lease behind it"`
	Note        string          `json:"note" doc:"a sentence"`
	Replaceable bool            `json:"replaceable" doc:"its fee can be raised"`
}

// PaymentRequest is a payment to plan or to make.
type PaymentRequest struct {
	Address string          `json:"address" maxLength:"128"`
	Amount  pktcloud.Amount `json:"amount,omitempty" doc:"base units; absent with all"`
	All     bool            `json:"all,omitempty" doc:"pay all that can be spent"`
	FeeRate pktcloud.Amount `json:"fee_rate,omitempty" doc:"base units per 1000 virtual bytes; the chain's own rate when that is higher"`
	MaxFee  pktcloud.Amount `json:"max_fee,omitempty" doc:"base units that the fee may not exceed; a payment needs it, a plan does not"`
	Account uint32          `json:"account,omitempty"`
	Coins   []string        `json:"coins,omitempty" doc:"the coins to spend, all of them and no others" maxItems:"400"`
	Label   string          `json:"label,omitempty" maxLength:"256"`
	Once    string          `json:"once,omitempty" doc:"a word of the caller's; a second request with it pays nothing and is answered like the first" maxLength:"64"`
}

// Plan is what a payment would be.
type Plan struct {
	Address string          `json:"address"`
	Amount  pktcloud.Amount `json:"amount" doc:"that arrives"`
	Fee     pktcloud.Amount `json:"fee"`
	Change  pktcloud.Amount `json:"change" doc:"that comes back"`
	Left    pktcloud.Amount `json:"left" doc:"what the account has afterwards"`
	Coins   []string        `json:"coins" doc:"that it would spend"`
	VBytes  uint64          `json:"virtual_bytes"`
}

// Payment is one that was made. With Stored the chain could not be reached: the
// payment goes out by itself once it can.
type Payment struct {
	TxID   string `json:"txid"`
	Stored bool   `json:"stored" doc:"the chain could not be reached; the payment goes out by itself"`
}

// ReplaceRequest raises the fee of a payment.
type ReplaceRequest struct {
	TxID    string          `json:"txid" maxLength:"64"`
	FeeRate pktcloud.Amount `json:"fee_rate,omitempty" doc:"base units per 1000 virtual bytes; the least that replaces the old one when absent or lower"`
	MaxFee  pktcloud.Amount `json:"max_fee" doc:"base units that the new fee may not exceed"`
}

// CoinQuery chooses coins: Limit of them (zero: all) after the first Skip.
type CoinQuery struct {
	Skip  int `json:"skip,omitempty"`
	Limit int `json:"limit,omitempty"`
}

// Coin is an unspent output of the wallet.
type Coin struct {
	Coin     string          `json:"coin" doc:"transaction id, colon, index"`
	Amount   pktcloud.Amount `json:"amount"`
	Address  string          `json:"address"`
	Label    string          `json:"label,omitempty"`
	Account  uint32          `json:"account"`
	Depth    uint64          `json:"depth"`
	State    string          `json:"state" enum:"free,waiting,reserved,frozen"`
	IsChange bool            `json:"change" doc:"left over from a payment of this wallet"`
}

// FreezeRequest sets a coin aside, or back.
type FreezeRequest struct {
	Coin   string `json:"coin" maxLength:"80"`
	Frozen bool   `json:"frozen"`
}

// LabelRequest names an address or a transaction; an empty label removes the
// name.
type LabelRequest struct {
	Address string `json:"address,omitempty" maxLength:"128"`
	TxID    string `json:"txid,omitempty" maxLength:"64"`
	Label   string `json:"label" maxLength:"256"`
}

// WalletAccount is a BIP 84 account.
type WalletAccount struct {
	Number      uint32          `json:"number"`
	Name        string          `json:"name"`
	Spendable   pktcloud.Amount `json:"spendable"`
	Unconfirmed pktcloud.Amount `json:"unconfirmed"`
	Reserved    pktcloud.Amount `json:"reserved" doc:"in coins set aside for payments and channels under way"`
	Frozen      pktcloud.Amount `json:"frozen"`
}

// AccountRequest names a new account.
type AccountRequest struct {
	Name string `json:"name" maxLength:"256"`
}

// SweepRequest takes the coins of a private key from elsewhere. It prints
// without the key.
type SweepRequest struct {
	Key     string          `json:"key" doc:"private key in wallet import format" maxLength:"60"`
	FeeRate pktcloud.Amount `json:"fee_rate,omitempty" doc:"base units per 1000 virtual bytes"`
	MaxFee  pktcloud.Amount `json:"max_fee,omitempty" doc:"base units that the fee may not exceed"`
	Plan    bool            `json:"plan,omitempty" doc:"only say what it would take"`
}

// String keeps the key out of logs.
func (SweepRequest) String() string { return "sweep" }

// Sweep is what a private key gave or would give.
type Sweep struct {
	TxID   string          `json:"txid,omitempty"`
	Coins  int             `json:"coins"`
	More   bool            `json:"more" doc:"there are more coins than one transaction takes: sweep again"`
	Amount pktcloud.Amount `json:"amount"`
	Fee    pktcloud.Amount `json:"fee"`
	Stored bool            `json:"stored" doc:"the chain could not be reached; the transaction goes out by itself"`
}

// UnlockRequest gives the keystore's password. It prints without it.
type UnlockRequest struct {
	Password string `json:"password" maxLength:"1024"`
}

// String keeps the password out of logs.
func (UnlockRequest) String() string { return "unlock" }

// PasswordRequest changes the keystore's password. It prints without them.
type PasswordRequest struct {
	Old string `json:"old" doc:"empty for a keystore that starts unattended" maxLength:"1024"`
	New string `json:"new" maxLength:"1024"`
}

// String keeps the passwords out of logs.
func (PasswordRequest) String() string { return "change the password" }

// LockState says whether the wallet can pay.
type LockState struct {
	Locked     bool   `json:"locked"`
	Unattended bool   `json:"unattended" doc:"the password lies in the data directory, so that the node starts by itself; a lock would guard nothing"`
	AfterIdle  uint64 `json:"after_idle" doc:"seconds without a payment after which the wallet locks itself; 0: never"`
}

// ChannelView is a payment channel as its owner sees it.
type ChannelView struct {
	ID       string             `json:"id" doc:"the channel's; of one that nobody has shown since it was restored, its funding output"`
	Label    string             `json:"label" doc:"short name, unique on this node"`
	Role     string             `json:"role" enum:"payer,payee"`
	Peer     pktcloud.PublicKey `json:"peer,omitzero" doc:"the other side's device, where it is known"`
	Leases   []string           `json:"leases" doc:"labels of the leases that it pays"`
	Phase    string             `json:"phase"`
	Restored bool               `json:"restored,omitempty" doc:"it came back with the phrase: from the chain, from a tower or from its other side"`
	Now      string             `json:"now" doc:"what happens with it, in a sentence"`
	Steps    []Step             `json:"steps" doc:"its life, from the opening to the end"`
	Capacity pktcloud.Amount    `json:"capacity" doc:"what the payer set aside"`
	Paid     pktcloud.Amount    `json:"paid"`
	Reserve  pktcloud.Amount    `json:"reserve" doc:"part of the capacity that pays the closing's fee and cannot be spent"`
	Left     pktcloud.Amount    `json:"left" doc:"what further payments can add"`
	AtRisk   pktcloud.Amount    `json:"at_risk" doc:"that this side would lose now if the other vanished"`
	Limit    pktcloud.Amount    `json:"at_risk_limit" doc:"what at_risk never exceeds"`
	Height   uint64             `json:"height" doc:"of the best block known"`
	Deadline uint64             `json:"deadline" doc:"height from which nothing more is paid"`
	Expiry   uint64             `json:"expiry" doc:"height at which the payer may take back what was not claimed"`
	Created  int64              `json:"created" doc:"Unix seconds; 0: not known, as of one that another went on as"`
	Into     string             `json:"into,omitempty" doc:"the channel that it goes on as, or went on as"`
	From     string             `json:"from,omitempty" doc:"the channel that went on as this one"`
	// IntoLabel and FromLabel are the short names of these.
	IntoLabel string `json:"into_label,omitempty"`
	FromLabel string `json:"from_label,omitempty"`
}

// Over reports whether the channel has ended.
func (c ChannelView) Over() bool {
	switch c.Phase {
	case "closed", "refunded", "abandoned", "rolled":
		return true
	}
	return false
}

// MaxExtendDays is by how many days one roll can make a channel end later.
const MaxExtendDays = 366

// RollRequest adds money, time or both to a channel.
type RollRequest struct {
	Add           pktcloud.Amount `json:"add,omitempty" doc:"base units from the wallet"`
	ExtendSeconds uint64          `json:"extend_seconds,omitempty" maximum:"31622400" doc:"the channel ends at least so much later"`
	MaxFee        pktcloud.Amount `json:"max_fee,omitempty" doc:"fee that is not to be exceeded; required but for a plan"`
	Plan          bool            `json:"plan,omitempty" doc:"only say what it would cost"`
}

// Roll is what a channel becomes by more money or time: another channel, which
// pays on where it stood.
type Roll struct {
	Channel  string          `json:"channel"`
	Into     string          `json:"into,omitempty" doc:"the channel that it goes on as; absent in a plan, and until the provider has answered"`
	Capacity pktcloud.Amount `json:"capacity"`
	Added    pktcloud.Amount `json:"added"`
	Fee      pktcloud.Amount `json:"fee" doc:"from the wallet; 0 for a roll that is under way already"`
	Left     pktcloud.Amount `json:"left" doc:"what can be spent afterwards, but for change that waits for a block"`
	Expiry   uint64          `json:"expiry" doc:"height at which the payer may take back what was not claimed"`
	Depth    uint64          `json:"depth" doc:"confirmations until payments are signed for the new channel alone"`
	Height   uint64          `json:"height,omitempty" doc:"of the best block known"`
	Seconds  uint64          `json:"seconds,omitempty" doc:"about how long until expiry, by the network's block time"`
}

// Step is a part of a channel's life.
type Step struct {
	Name  string `json:"name"`
	State string `json:"state" enum:"done,now,ahead"`
	Text  string `json:"text"`
	TxID  string `json:"txid,omitempty"`
	Depth uint64 `json:"depth,omitempty"`
}
