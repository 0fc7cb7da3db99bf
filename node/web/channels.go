package web

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

type channelsPage struct {
	page
	Channels []service.ChannelView
	Towers   service.TowerReport
	Earns    bool // in one of them at least
}

func (w *Web) channels(rw http.ResponseWriter, r *http.Request) { w.showChannels(rw, r, nil) }

func (w *Web) showChannels(rw http.ResponseWriter, r *http.Request, problem error) {
	channels, err1 := w.svc.Channels(r.Context())
	towers, err2 := w.svc.Towers(r.Context())
	err, status := firstError(problem, err1, err2), http.StatusOK
	if err != nil {
		status = service.CodeOf(err).Status()
	}
	w.show(rw, status, "channels", channelsPage{
		page: w.page(r, "Channels", err), Channels: channels, Towers: towers,
		Earns: slices.ContainsFunc(channels, func(c service.ChannelView) bool { return c.Role == "payee" }),
	})
}

// deposit brings all towers up to date now.
func (w *Web) deposit(rw http.ResponseWriter, r *http.Request) {
	if _, err := w.svc.Deposit(r.Context()); err != nil {
		w.showChannels(rw, r, err)
		return
	}
	http.Redirect(rw, r, "/channels#towers", http.StatusSeeOther)
}

type channelPage struct {
	page
	Channel service.ChannelView
}

// Closable reports whether the owner may close the channel by hand: it came back
// with the phrase, and its other side has shown it.
func (p channelPage) Closable() bool {
	c := p.Channel
	return c.Restored && c.Role == "payer" && !c.Peer.IsZero() && (c.Phase == "opening" || c.Phase == "open")
}

// Rollable reports whether the owner may add money or time to the channel.
func (p channelPage) Rollable() bool {
	c := p.Channel
	return !c.Restored && c.Role == "payer" && c.Phase == "open"
}

func (w *Web) channel(rw http.ResponseWriter, r *http.Request) { w.showChannel(rw, r, nil) }

func (w *Web) showChannel(rw http.ResponseWriter, r *http.Request, problem error) {
	c, err := w.svc.Channel(r.Context(), r.PathValue("channel"))
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	status := http.StatusOK
	if problem != nil {
		status = service.CodeOf(problem).Status()
	}
	w.show(rw, status, "channel", channelPage{page: w.page(r, "Channel "+c.Label, problem), Channel: c})
}

// closeChannel closes one that came back with the phrase.
func (w *Web) closeChannel(rw http.ResponseWriter, r *http.Request) {
	c, err := w.svc.CloseChannel(r.Context(), r.PathValue("channel"))
	if err != nil {
		w.showChannel(rw, r, err)
		return
	}
	http.Redirect(rw, r, "/channels/"+url.PathEscape(c.Label), http.StatusSeeOther)
}
