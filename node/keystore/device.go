package keystore

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// OpenDevice returns the device key kept in the file at path, and makes one
// when there is none. The file holds the seed in hexadecimal and is readable
// by this user only. random is nil for crypto/rand. Errors match [ErrDamaged]
// or [ErrExposed].
func OpenDevice(path string, random io.Reader) (pktcloud.PrivateKey, error) {
	key, err := readDevice(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key, err = createDevice(path, random)
	if errors.Is(err, ErrExists) { // another process was first
		return readDevice(path)
	}
	return key, err
}

func readDevice(path string) (pktcloud.PrivateKey, error) {
	data, err := readSecret(path)
	if err != nil {
		return pktcloud.PrivateKey{}, err
	}
	var seed [32]byte
	if len(data) != hex.EncodedLen(len(seed))+1 || data[len(data)-1] != '\n' {
		return pktcloud.PrivateKey{}, fmt.Errorf("%w: %s is no device key", ErrDamaged, path)
	}
	if _, err := hex.Decode(seed[:], data[:len(data)-1]); err != nil {
		return pktcloud.PrivateKey{}, fmt.Errorf("%w: %s is no device key", ErrDamaged, path)
	}
	return pktcloud.NewPrivateKey(seed), nil
}

func createDevice(path string, random io.Reader) (pktcloud.PrivateKey, error) {
	if random == nil {
		random = rand.Reader
	}
	var seed [32]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return pktcloud.PrivateKey{}, fmt.Errorf("keystore: make a device key: %w", err)
	}
	if err := writeNew(path, append(hex.AppendEncode(nil, seed[:]), '\n')); err != nil {
		return pktcloud.PrivateKey{}, err
	}
	return pktcloud.NewPrivateKey(seed), nil
}

// NewDevice returns the entry of an account record for a device that acts from
// now on for as long as the record may say.
func NewDevice(key pktcloud.PublicKey, name string, now time.Time) pktcloud.Device {
	return pktcloud.Device{Key: key, Name: name, Expires: now.Add(pktcloud.MaxDeviceLifetime).Unix()}
}
