package node

import (
	"context"
	"sync"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// How many images are looked at at once for those who ask for a quote: for one
// device, and for all [CONTAINER-45].
const (
	MaxInspectOfOne = 2
	MaxInspect      = 16
)

// inspectDeadline bounds the looks for one quote.
const inspectDeadline = time.Minute

// inspector looks at an image without fetching its layers; *image.Store is one.
type inspector interface {
	Inspect(ctx context.Context, ref string, o container.PullOptions) (container.Image, error)
}

// inspect says whether a service's image can be had, from what a registry says
// of it. Whoever asks has paid nothing: no layer is fetched, and few look at
// once.
func (n *Node) inspect(ctx context.Context, device pktcloud.PublicKey, v lease.Service, c lease.Credentials) error {
	w := n.work
	if w.look == nil {
		return nil
	}
	o := pullOptions(v.Image, c)
	key := pullKey(v.Image, o)
	p, ok := w.recent(key)
	if !ok {
		if !n.looking.enter(device) {
			return lease.Refusal(lease.CodeBusy, "too many images are looked at; try again")
		}
		defer n.looking.leave(device)
		got, err := w.look.Inspect(ctx, v.Image, o)
		if err != nil {
			return err
		}
		p = w.remember(key, pulled{image: got})
	}
	return checkPin(v, p.image)
}

// looking counts the looks under way.
type looking struct {
	mu  sync.Mutex // guards what follows
	all int
	of  map[pktcloud.PublicKey]int
}

func (l *looking) enter(device pktcloud.PublicKey) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= MaxInspect || l.of[device] >= MaxInspectOfOne {
		return false
	}
	if l.of == nil {
		l.of = map[pktcloud.PublicKey]int{}
	}
	l.all++
	l.of[device]++
	return true
}

func (l *looking) leave(device pktcloud.PublicKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.of[device]--; l.of[device] == 0 {
		delete(l.of, device)
	}
}

// Images implements service.Market.
func (n *Node) Images(ctx context.Context) (service.ImageStore, error) {
	if n.work == nil || n.work.images == nil {
		return service.ImageStore{}, service.Errorf(service.CodeMissing, "this node keeps no images; start it with --provider")
	}
	list, err := n.work.images.List(ctx)
	if err != nil {
		return service.ImageStore{}, translate(err)
	}
	out := service.ImageStore{Images: []service.StoredImage{}}
	out.UsedBytes, out.MaxBytes = n.work.images.Used()
	for _, i := range list {
		out.Images = append(out.Images, service.StoredImage{
			Image:         service.Image{Ref: i.Ref, Digest: i.Image.Digest, SizeBytes: i.Image.SizeBytes},
			UnpackedBytes: i.Image.UnpackedBytes, Layers: len(i.Layers), InUse: i.InUse, Private: i.Private, LastUsed: i.LastUsed.Unix(),
		})
	}
	return out, nil
}

// PruneImages implements service.Market.
func (n *Node) PruneImages(ctx context.Context, unused time.Duration) (service.PrunedImages, error) {
	if n.work == nil || n.work.images == nil {
		return service.PrunedImages{}, service.Errorf(service.CodeMissing, "this node keeps no images; start it with --provider")
	}
	p, err := n.work.images.Prune(ctx, time.Now().Add(-unused))
	out := service.PrunedImages{Digests: p.Images, FreedBytes: p.Bytes}
	if out.Digests == nil {
		out.Digests = []string{}
	}
	return out, translate(err)
}
