package p2p

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// PeerKey returns the device key that a peer id stands for [ID-2]. Errors
// match [pktcloud.ErrKey] for a peer id of another kind of key, or of a key
// that is weak.
func PeerKey(id peer.ID) (pktcloud.PublicKey, error) {
	public, err := id.ExtractPublicKey()
	if err != nil {
		return pktcloud.PublicKey{}, fmt.Errorf("%w: peer %s holds no key: %w", pktcloud.ErrKey, id, err)
	}
	raw, err := public.Raw()
	if err != nil || public.Type() != crypto.Ed25519 || len(raw) != len(pktcloud.PublicKey{}) {
		return pktcloud.PublicKey{}, fmt.Errorf("%w: peer %s has no Ed25519 key", pktcloud.ErrKey, id)
	}
	key := pktcloud.PublicKey(raw)
	if err := key.Validate(); err != nil {
		return pktcloud.PublicKey{}, err
	}
	return key, nil
}

// PeerID returns the peer id of a device key. Errors match [pktcloud.ErrKey].
func PeerID(key pktcloud.PublicKey) (peer.ID, error) {
	if err := key.Validate(); err != nil {
		return "", err
	}
	public, err := crypto.UnmarshalEd25519PublicKey(key[:])
	if err != nil {
		return "", fmt.Errorf("%w: %w", pktcloud.ErrKey, err)
	}
	return peer.IDFromPublicKey(public)
}

// Addresses returns the multiaddrs under which h can be dialled, each ending
// in /p2p/ and the peer id, as an offer lists them.
func Addresses(h host.Host) []string {
	var texts []string
	for _, a := range h.Addrs() {
		texts = append(texts, a.String()+"/p2p/"+h.ID().String())
	}
	return texts
}

// AddrInfo splits such a multiaddr into peer and address, to be dialled.
func AddrInfo(text string) (peer.AddrInfo, error) {
	info, err := peer.AddrInfoFromString(text)
	if err != nil {
		return peer.AddrInfo{}, fmt.Errorf("p2p: address %q: %w", text, err)
	}
	if _, err := PeerKey(info.ID); err != nil {
		return peer.AddrInfo{}, fmt.Errorf("p2p: address %q: %w", text, err)
	}
	return *info, nil
}

// identity gives libp2p the device key.
func identity(key pktcloud.PrivateKey) (crypto.PrivKey, peer.ID, error) {
	seed, public := key.Seed(), key.Public()
	private, err := crypto.UnmarshalEd25519PrivateKey(append(seed[:], public[:]...))
	if err != nil {
		return nil, "", err
	}
	id, err := peer.IDFromPrivateKey(private)
	return private, id, err
}
