package session

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// KeyOf returns the device key of a libp2p peer. Errors match [pktcloud.ErrKey].
func KeyOf(id peer.ID) (pktcloud.PublicKey, error) {
	pub, err := id.ExtractPublicKey()
	if err != nil || pub.Type() != crypto.Ed25519 {
		return pktcloud.PublicKey{}, fmt.Errorf("%w: peer %s has no Ed25519 key in its id", pktcloud.ErrKey, id)
	}
	raw, err := pub.Raw()
	if err != nil || len(raw) != len(pktcloud.PublicKey{}) {
		return pktcloud.PublicKey{}, fmt.Errorf("%w: peer %s", pktcloud.ErrKey, id)
	}
	k := pktcloud.PublicKey(raw)
	return k, k.Validate()
}

// PeerOf returns the libp2p peer of a device key. Errors match [pktcloud.ErrKey].
func PeerOf(k pktcloud.PublicKey) (peer.ID, error) {
	id, err := peer.Decode(k.PeerID())
	if err != nil {
		return "", fmt.Errorf("%w: %w", pktcloud.ErrKey, err)
	}
	return id, nil
}
