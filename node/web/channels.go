package web

import (
	"net/http"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

type channelsPage struct {
	page
	Channels []service.ChannelView
}

func (w *Web) channels(rw http.ResponseWriter, r *http.Request) {
	channels, err := w.svc.Channels(r.Context())
	status := http.StatusOK
	if err != nil {
		status = service.CodeOf(err).Status()
	}
	w.show(rw, status, "channels", channelsPage{page: w.page(r, "Channels", err), Channels: channels})
}

type channelPage struct {
	page
	Channel service.ChannelView
}

func (w *Web) channel(rw http.ResponseWriter, r *http.Request) {
	c, err := w.svc.Channel(r.Context(), r.PathValue("channel"))
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	w.show(rw, http.StatusOK, "channel", channelPage{page: w.page(r, "Channel "+c.Label, nil), Channel: c})
}
