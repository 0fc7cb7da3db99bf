package sshd

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

// hostKeyFile is the file of the key, in the node's directory, in OpenSSH's form.
const hostKeyFile = "ssh_host_ed25519_key"

// HostKey returns the key by which clients know the leases of the node in dir. It
// is made when it is first asked for.
func HostKey(dir string) (ssh.Signer, error) {
	path := filepath.Join(dir, hostKeyFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeHostKey(path); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make the SSH host key: %w", err)
		}
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the SSH host key: %w", err)
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, &service.Error{
			Code: service.CodeInvalid, Err: err,
			Detail: fmt.Sprintf("%s is no SSH key; remove it, and a new one is made", path),
		}
	}
	return key, nil
}

// makeHostKey writes a new key. The file appears whole or not at all, and of
// several processes that make one the first wins: the others get [fs.ErrExist].
func makeHostKey(path string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(key, "pktcloud")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), hostKeyFile+"-*") // its owner alone may read it
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // what stands there is the key's other name
	_, err = f.Write(pem.EncodeToMemory(block))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}
