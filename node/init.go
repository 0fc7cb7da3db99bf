package node

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pkt-cash/pkt-cloud/internal/durable"
	"github.com/pkt-cash/pkt-cloud/node/keystore"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// unattendedWorkFactor suffices for a password of 256 random bits.
const unattendedWorkFactor = 10

// InitConfig says how [Init] makes a keystore.
type InitConfig struct {
	Dir string // empty means DefaultDir
	// Password encrypts the keystore. With Unattended a random one is left in
	// the directory instead, so that the node starts by itself: whoever can
	// read the directory then has the money.
	Password   string
	Unattended bool
	// Phrase restores an identity; the zero value makes a new one. Passphrase
	// is the optional one of BIP39.
	Phrase     keystore.Phrase
	Passphrase string
	// Birthday is a height of the chain at which a restored phrase had no money
	// yet; the search for its coins begins there. Zero is always right.
	Birthday uint64
}

// newPhrase stands in the birthday file of a phrase that has never seen a chain.
const newPhrase = "new"

// Init makes a data directory with a keystore, and returns the phrase that
// restores it. An existing keystore is never overwritten.
func Init(c InitConfig) (keystore.Phrase, error) {
	if c.Dir == "" {
		c.Dir = DefaultDir()
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return keystore.Phrase{}, translate(err)
	}
	path := filepath.Join(c.Dir, keystoreFile)
	if _, err := os.Lstat(path); err == nil {
		return keystore.Phrase{}, service.Errorf(service.CodeConflict, "%s holds a keystore already; choose another directory with --dir", c.Dir)
	}
	kc := keystore.Config{Password: c.Password, Phrase: c.Phrase, Passphrase: c.Passphrase}
	if c.Unattended {
		var secret [32]byte
		rand.Read(secret[:])
		kc.Password, kc.WorkFactor = hex.EncodeToString(secret[:]), unattendedWorkFactor
		if err := durable.WriteFile(filepath.Join(c.Dir, passwordFile), []byte(kc.Password+"\n")); err != nil {
			return keystore.Phrase{}, translate(err)
		}
	}
	if kc.Password == "" {
		return keystore.Phrase{}, service.Errorf(service.CodeInvalid, "the keystore needs a password")
	}
	birthday := strconv.FormatUint(c.Birthday, 10)
	if c.Phrase.IsZero() {
		birthday = newPhrase
	}
	if err := durable.WriteFile(filepath.Join(c.Dir, birthdayFile), []byte(birthday+"\n")); err != nil {
		return keystore.Phrase{}, translate(err)
	}
	k, err := keystore.Create(path, kc)
	if err != nil {
		return keystore.Phrase{}, translate(err)
	}
	return k.Phrase(), nil
}

// readBirthday reads the birthday of a data directory's phrase: zero without
// the file.
func readBirthday(dir string) (height uint64, isNew bool, err error) {
	b, err := os.ReadFile(filepath.Join(dir, birthdayFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	text := strings.TrimSpace(string(b))
	if text == newPhrase {
		return 0, true, nil
	}
	if height, err = strconv.ParseUint(text, 10, 64); err != nil {
		return 0, false, service.Errorf(service.CodeInvalid, "%s holds no height; put 0 there", filepath.Join(dir, birthdayFile))
	}
	return height, false, nil
}

// keepBirthday puts a new phrase's birthday, once the wallet has one, in place
// of the word that it is new: should the database be lost, the phrase is not.
func (n *Node) keepBirthday() error {
	_, isNew, err := readBirthday(n.cfg.Dir)
	height, born := n.wallet.Birthday()
	if err != nil || !isNew || !born {
		return err
	}
	return durable.WriteFile(filepath.Join(n.cfg.Dir, birthdayFile), []byte(strconv.FormatUint(height, 10)+"\n"))
}

// readPassword reads the password that an unattended keystore has beside it.
func readPassword(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, passwordFile))
	return strings.TrimSpace(string(b)), err
}

// openKeystore opens the keystore of a data directory.
func openKeystore(dir, password string) (*keystore.Keystore, error) {
	if password == "" {
		var err error
		if password, err = readPassword(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, translate(err)
		}
	}
	path := filepath.Join(dir, keystoreFile)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, service.Errorf(service.CodeNoNode, "%s holds no keystore; make one with \"pktcloud init --dir %s\"", dir, dir)
	}
	if password == "" {
		return nil, service.Errorf(service.CodeUnauthorized, "the keystore in %s needs its password; give it with --password-file", dir)
	}
	k, err := keystore.Open(path, password)
	return k, translate(err)
}
