// Package keystore keeps the one secret of an owner, the recovery phrase, in an
// encrypted file, and the device key of a machine in another.
//
// Start with [Create] and [Open], or [OpenDevice]. The phrase gives the
// identity, the backup key and the seed of the wallet; the device key is
// random, so that two machines with one phrase do not collide and a stolen one
// is revoked alone. The rules are those of spec/identity.md.
package keystore

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/durable"
)

// DefaultWorkFactor is the scrypt cost of a new file as a power of two: about
// a second and 256 MiB.
const DefaultWorkFactor = 18

// maxWorkFactor bounds what a file may make this program compute.
const maxWorkFactor = 20

// maxFile bounds a keystore file; real ones have some 400 bytes.
const maxFile = 4 << 10

// Errors that functions of this package wrap.
var (
	// ErrExists marks a file that Create would have to overwrite.
	ErrExists = errors.New("keystore: the file exists already")
	// ErrPassword marks a password that does not open the file.
	ErrPassword = errors.New("keystore: wrong password")
	// ErrDamaged marks a file that is no keystore or device key.
	ErrDamaged = errors.New("keystore: damaged file")
	// ErrExposed marks a secret file that other users may read.
	ErrExposed = errors.New("keystore: other users may read the file")
)

// Config says what Create writes. Password is required.
type Config struct {
	Password   string    // encrypts the file
	Phrase     Phrase    // the zero value means a new one
	Passphrase string    // optional, of BIP39; kept in the file
	WorkFactor int       // zero means DefaultWorkFactor
	Random     io.Reader // nil means crypto/rand
}

// Keystore is an opened keystore. It prints as "keystore".
type Keystore struct {
	phrase     Phrase
	passphrase string
	seed       []byte
}

// Create makes a keystore and writes its file, readable by this user only. An
// existing file is never overwritten: errors match [ErrExists].
func Create(path string, c Config) (*Keystore, error) {
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.WorkFactor == 0 {
		c.WorkFactor = DefaultWorkFactor
	}
	if c.WorkFactor < 1 || c.WorkFactor > maxWorkFactor {
		return nil, fmt.Errorf("keystore: work factor %d, want 1 to %d", c.WorkFactor, maxWorkFactor)
	}
	if strings.ContainsAny(c.Passphrase, "\r\n") {
		return nil, errors.New("keystore: a passphrase is a single line")
	}
	if c.Phrase.IsZero() {
		var err error
		if c.Phrase, err = NewPhrase(c.Random); err != nil {
			return nil, err
		}
	}
	sealed, err := encrypt(c)
	if err != nil {
		return nil, fmt.Errorf("keystore: encrypt: %w", err)
	}
	if err := writeNew(path, sealed); err != nil {
		return nil, err
	}
	return newKeystore(c.Phrase, c.Passphrase), nil
}

// encrypt returns an age file whose content is the phrase on one line and the
// passphrase, if any, on the next, so that "age -d" alone recovers both.
func encrypt(c Config) ([]byte, error) {
	recipient, err := age.NewScryptRecipient(c.Password)
	if err != nil {
		return nil, err
	}
	recipient.SetWorkFactor(c.WorkFactor)
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, recipient)
	if err != nil {
		return nil, err
	}
	text := strings.Join(c.Phrase.words, " ") + "\n"
	if c.Passphrase != "" {
		text += c.Passphrase + "\n"
	}
	_, err = io.WriteString(w, text)
	err = errors.Join(err, w.Close())
	return sealed.Bytes(), err
}

// Open reads the keystore at path. Errors match [ErrPassword], [ErrDamaged],
// [ErrExposed] or [os.ErrNotExist].
func Open(path, password string) (*Keystore, error) {
	sealed, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	id, err := age.NewScryptIdentity(password)
	if err != nil {
		return nil, fmt.Errorf("%w: it is empty", ErrPassword)
	}
	id.SetMaxWorkFactor(maxWorkFactor)
	r, err := age.Decrypt(bytes.NewReader(sealed), id)
	if err != nil {
		var mismatch *age.NoIdentityMatchError
		if errors.As(err, &mismatch) && slices.Contains(mismatch.StanzaTypes, "scrypt") {
			return nil, fmt.Errorf("%w for %s", ErrPassword, path)
		}
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, path, err)
	}
	text, err := io.ReadAll(io.LimitReader(r, maxFile))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, path, err)
	}
	line, rest, ok := strings.Cut(string(text), "\n")
	passphrase, end, more := strings.Cut(rest, "\n")
	if !ok || end != "" || rest != "" && !more {
		return nil, fmt.Errorf("%w: %s", ErrDamaged, path)
	}
	phrase, err := ReadPhrase(line)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: its phrase is broken", ErrDamaged, path)
	}
	return newKeystore(phrase, passphrase), nil
}

func newKeystore(phrase Phrase, passphrase string) *Keystore {
	return &Keystore{phrase: phrase, passphrase: passphrase, seed: phrase.Seed(passphrase)}
}

// ChangePassword encrypts the keystore at path with another password. The file
// is replaced whole, so a crash leaves one of the two. A work factor of zero
// means DefaultWorkFactor. Errors are those of Open; a new password may not be
// empty.
func ChangePassword(path, old, password string, workFactor int) error {
	if password == "" {
		return fmt.Errorf("%w: the new one is empty", ErrPassword)
	}
	k, err := Open(path, old)
	if err != nil {
		return err
	}
	defer k.Forget()
	if workFactor == 0 {
		workFactor = DefaultWorkFactor
	}
	sealed, err := encrypt(Config{Password: password, Phrase: k.phrase, Passphrase: k.passphrase, WorkFactor: workFactor})
	if err != nil {
		return fmt.Errorf("keystore: encrypt: %w", err)
	}
	if err := durable.WriteFile(path, sealed); err != nil {
		return fmt.Errorf("keystore: write %s: %w", path, err)
	}
	return nil
}

// Forget overwrites the seed and lets go of the phrase. The keystore gives no
// keys afterwards.
func (k *Keystore) Forget() {
	clear(k.seed)
	*k = Keystore{}
}

// Phrase returns the recovery phrase.
func (k *Keystore) Phrase() Phrase { return k.phrase }

// HasPassphrase reports whether the phrase alone does not restore the keys.
func (k *Keystore) HasPassphrase() bool { return k.passphrase != "" }

// Seed returns the BIP39 seed, from which the wallet derives its keys.
func (k *Keystore) Seed() []byte { return bytes.Clone(k.seed) }

// Identity returns the owner's identity key [ID-8].
func (k *Keystore) Identity() pktcloud.PrivateKey { return pktcloud.IdentityKey(k.seed) }

// BackupKey returns the root of the owner's backup keys [ID-8].
func (k *Keystore) BackupKey() [32]byte { return pktcloud.BackupKey(k.seed) }

// Account signs the record that lists the devices and money keys of the owner,
// issued at now [ID-5]. Of two records the higher sequence counts.
func (k *Keystore) Account(sequence uint64, now time.Time, devices []pktcloud.Device, money []pktcloud.MoneyKey) (pktcloud.Signed[pktcloud.Account], error) {
	key := k.Identity()
	return pktcloud.Seal(key, pktcloud.Account{
		Version: pktcloud.AccountVersion, Identity: key.Public(), Sequence: sequence,
		Issued: now.Unix(), Devices: devices, Money: money,
	})
}

// String keeps the secrets out of logs.
func (k Keystore) String() string { return "keystore" }

// GoString keeps the secrets out of %#v.
func (k Keystore) GoString() string { return k.String() }

// Format keeps the secrets out of every other verb.
func (k Keystore) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// readSecret reads a small file that nobody else may read.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%w: %s is no regular file of at most %d bytes", ErrDamaged, path, maxFile)
	}
	if exposed(info.Mode()) {
		return nil, fmt.Errorf("%w: chmod 600 %s", ErrExposed, path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("keystore: read %s: %w", path, err)
	}
	return data, nil
}
