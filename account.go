package pktcloud

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Limits of an account record [ID-7].
const (
	MaxAccountBytes   = 16 << 10
	MaxDevices        = 32
	MaxMoneyKeys      = 8
	MaxDeviceName     = 64 // bytes
	MaxRailName       = 32
	MaxMoneyKey       = 128
	MaxMoneyProof     = 256
	MaxDeviceLifetime = 366 * 24 * time.Hour
)

// AccountVersion is the version of the Account record that this package writes.
const AccountVersion = 1

// Account says which devices act for an identity and which money keys are its
// own [ID-5]. The identity signs it; the newest sequence counts.
type Account struct {
	Version  uint64            `cbor:"v" json:"v"`
	Identity PublicKey         `cbor:"identity" json:"identity"`
	Sequence uint64            `cbor:"sequence" json:"sequence"`
	Issued   int64             `cbor:"issued" json:"issued"` // Unix seconds
	Devices  []Device          `cbor:"devices" json:"devices"`
	Money    []MoneyKey        `cbor:"money" json:"money"`
	Ext      map[string][]byte `cbor:"ext" json:"ext,omitempty"`
}

// Device is a machine that acts for an identity until it expires. Its key is
// its libp2p peer id.
type Device struct {
	Key     PublicKey `cbor:"key" json:"key"`
	Name    string    `cbor:"name" json:"name"`
	Expires int64     `cbor:"expires" json:"expires"` // Unix seconds, exclusive
}

// MoneyKey is a key of a settlement rail that belongs to the identity. Proof
// is that key's own signature over [MoneyProofInput], in the rail's form, so
// that neither can claim the other [ID-6]. This package does not know the
// forms: whoever relies on a money key checks its proof with the rail.
type MoneyKey struct {
	Rail  string `cbor:"rail" json:"rail"`
	Key   []byte `cbor:"key" json:"key"`
	Proof []byte `cbor:"proof" json:"proof"`
}

// MoneyProofInput returns what a money key signs to prove that it belongs to
// an identity [ID-6]:
//
//	"pktcloud/v1/money" || 0x00 || rail || 0x00 || identity
func MoneyProofInput(identity PublicKey, rail string) []byte {
	in := make([]byte, 0, len(signingDomain)+len("money")+len(rail)+2+len(identity))
	in = append(in, signingDomain...)
	in = append(in, "money\x00"...)
	in = append(in, rail...)
	in = append(in, 0)
	return append(in, identity[:]...)
}

// RecordType returns "account".
func (Account) RecordType() string { return "account" }

// Signer returns the identity.
func (a Account) Signer() PublicKey { return a.Identity }

// Validate checks the record's shape. Errors match [ErrRecord] or [ErrKey].
func (a Account) Validate() error {
	if a.Version != AccountVersion {
		return fmt.Errorf("%w: account version %d, want %d", ErrRecord, a.Version, AccountVersion)
	}
	if err := a.Identity.Validate(); err != nil {
		return err
	}
	if a.Issued < 0 {
		return fmt.Errorf("%w: an account issued before 1970", ErrRecord)
	}
	if len(a.Devices) == 0 || len(a.Devices) > MaxDevices || len(a.Money) > MaxMoneyKeys {
		return fmt.Errorf("%w: an account lists 1 to %d devices and at most %d money keys", ErrRecord, MaxDevices, MaxMoneyKeys)
	}
	for i, d := range a.Devices {
		if err := d.Key.Validate(); err != nil {
			return err
		}
		if len(d.Name) > MaxDeviceName || !printable(d.Name) || d.Expires <= a.Issued || d.Expires > a.Issued+int64(MaxDeviceLifetime/time.Second) {
			return fmt.Errorf("%w: device %d of an account needs a short name and an end within a year", ErrRecord, i)
		}
		if slices.ContainsFunc(a.Devices[:i], func(o Device) bool { return o.Key == d.Key }) {
			return fmt.Errorf("%w: a device is listed twice", ErrRecord)
		}
	}
	for i, m := range a.Money {
		if m.Rail == "" || len(m.Rail) > MaxRailName || !printable(m.Rail) || len(m.Key) == 0 || len(m.Key) > MaxMoneyKey || len(m.Proof) > MaxMoneyProof {
			return fmt.Errorf("%w: malformed money key", ErrRecord)
		}
		if slices.ContainsFunc(a.Money[:i], func(o MoneyKey) bool { return o.Rail == m.Rail && bytes.Equal(o.Key, m.Key) }) {
			return fmt.Errorf("%w: a money key is listed twice", ErrRecord)
		}
	}
	return nil
}

// printable keeps control characters out of what is shown on terminals.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// Allows reports whether device may act for the account at now. Errors match
// [ErrKey] for an unknown device and [ErrExpired].
func (a Account) Allows(device PublicKey, now time.Time) error {
	i := slices.IndexFunc(a.Devices, func(d Device) bool { return d.Key == device })
	if i < 0 {
		return fmt.Errorf("%w: %s is no device of %s", ErrKey, device, a.Identity)
	}
	if now.Unix() >= a.Devices[i].Expires {
		return fmt.Errorf("%w: device %s", ErrExpired, device)
	}
	return nil
}

// ParseAccount decodes and verifies an account record [ID-5].
func ParseAccount(data []byte) (Signed[Account], error) {
	return ParseSigned[Account](data, MaxAccountBytes)
}
