package gossip

import (
	"fmt"
	"io"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/market"
)

// Limits of the protocol [MARKET-10] [MARKET-11].
const (
	MaxFollowBytes    = 1 << 10
	MaxListed         = 4096 // offers that a node sends at the start of a stream
	PeerBurst         = MaxListed + 512
	PeerPerSecond     = 20
	ProviderBurst     = 2 * market.MaxSlots
	ProviderPerSecond = 0.2
	BanSeconds        = 600
)

const (
	frameTimeout    = 30 * time.Second
	sweepInterval   = time.Minute
	queueLength     = 256
	maxWaitingOfOne = 4 // streams that have not asked to follow: of one peer, and of all
	maxWaiting      = 128
	maxRemembered   = 4096 // peers or providers that buckets and bans remember
)

// FollowVersion is the version of Follow that this package writes.
const FollowVersion = 1

// Follow opens a stream: send me your offers [MARKET-9]. It is the only
// message that the opener ever sends.
type Follow struct {
	Version uint64            `cbor:"v"`
	Ext     map[string][]byte `cbor:"ext"`
}

// ParseFollow decodes a Follow. Errors match [pktcloud.ErrEncoding],
// [pktcloud.ErrTooLarge] or [market.CodeMalformed].
func ParseFollow(data []byte) (Follow, error) {
	var f Follow
	if err := pktcloud.Unmarshal(data, &f, MaxFollowBytes); err != nil {
		return Follow{}, err
	}
	if f.Version != FollowVersion {
		return Follow{}, &market.Error{Code: market.CodeMalformed, Detail: fmt.Sprintf("follow version %d, want %d", f.Version, FollowVersion)}
	}
	return f, nil
}

func writeFollow(w io.Writer) error {
	b, err := pktcloud.Marshal(Follow{Version: FollowVersion})
	if err != nil {
		return err
	}
	return wire.WriteFrame(w, b)
}

func readFollow(r io.Reader) error {
	b, err := wire.ReadFrame(r, MaxFollowBytes)
	if err != nil {
		return err
	}
	_, err = ParseFollow(b)
	return err
}

// writeOffer sends an offer. The empty frame after the last one of the list
// says that the rest is news.
func writeOffer(w io.Writer, offer pktcloud.Signed[market.Offer]) error {
	b, err := offer.Encode()
	if err != nil {
		return err
	}
	return wire.WriteFrame(w, b)
}
