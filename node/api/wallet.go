package api

import (
	"context"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

type (
	historyInput struct {
		Skip  int    `query:"skip" minimum:"0" doc:"leave out the newest"`
		Limit int    `query:"limit" minimum:"0" doc:"at most so many; 0: all"`
		TxID  string `query:"txid" maxLength:"64" doc:"only this one"`
	}
	partInput struct {
		Skip  int `query:"skip" minimum:"0" doc:"leave out the first"`
		Limit int `query:"limit" minimum:"0" doc:"at most so many; 0: all"`
	}
	addressInput struct {
		Body *service.AddressRequest
	}
	rollInput struct {
		Channel string `path:"channel" doc:"id, or a unique beginning of its hexadecimal form" maxLength:"80"`
		Body    service.RollRequest
	}
	channelInput struct {
		Channel string `path:"channel" doc:"id, or a unique beginning of its hexadecimal form; of a restored one, its funding output" maxLength:"80"`
	}
)

// takes makes an operation of a method that takes a body.
func takes[B, O any](fn func(context.Context, B) (O, error)) func(context.Context, *struct{ Body B }) (O, error) {
	return func(ctx context.Context, i *struct{ Body B }) (O, error) { return fn(ctx, i.Body) }
}

// asks makes an operation of a method that takes nothing.
func asks[O any](fn func(context.Context) (O, error)) func(context.Context, *none) (O, error) {
	return func(ctx context.Context, _ *none) (O, error) { return fn(ctx) }
}

// walletRoutes are the operations on the money [API-10].
func (a *API) walletRoutes() {
	get(a, "wallet", "/wallet", "The money", asks(a.svc.WalletBalance))
	get(a, "wallet-history", "/wallet/history", "Transactions, newest first", func(ctx context.Context, i *historyInput) ([]service.Movement, error) {
		return a.svc.WalletHistory(ctx, service.HistoryQuery{Skip: i.Skip, Limit: i.Limit, TxID: i.TxID})
	})
	post(a, "wallet-address", "/wallet/addresses", "A fresh receiving address", func(ctx context.Context, i *addressInput) (service.Address, error) {
		if i.Body == nil {
			i.Body = &service.AddressRequest{}
		}
		return a.svc.WalletAddress(ctx, *i.Body)
	})
	post(a, "wallet-plan", "/wallet/plans", "What a payment would cost", takes(a.svc.WalletPlan))
	post(a, "wallet-send", "/wallet/payments", "Make a payment", takes(a.svc.WalletSend))
	post(a, "wallet-replace", "/wallet/replacements", "Raise the fee of a payment that waits for a block", takes(a.svc.WalletReplace))
	get(a, "wallet-coins", "/wallet/coins", "Unspent coins, the largest of each account first", func(ctx context.Context, i *partInput) ([]service.Coin, error) {
		return a.svc.WalletCoins(ctx, service.CoinQuery{Skip: i.Skip, Limit: i.Limit})
	})
	post(a, "wallet-freeze", "/wallet/coins/freeze", "Set a coin aside, or back", takes(a.svc.WalletFreeze))
	post(a, "wallet-label", "/wallet/labels", "Name an address or a transaction", takes(a.svc.WalletLabel))
	get(a, "wallet-accounts", "/wallet/accounts", "The accounts", asks(a.svc.WalletAccounts))
	post(a, "wallet-add-account", "/wallet/accounts", "Make the next account", takes(a.svc.WalletAddAccount))
	post(a, "wallet-sweep", "/wallet/sweeps", "Take what a private key from elsewhere holds", takes(a.svc.WalletSweep))
	post(a, "wallet-lock", "/wallet/lock", "Forget the keys until the password is given again", asks(a.svc.WalletLock))
	post(a, "wallet-unlock", "/wallet/unlock", "Give the password", takes(a.svc.WalletUnlock))
	post(a, "wallet-password", "/wallet/password", "Change the keystore's password", takes(a.svc.WalletPassword))
	get(a, "list-channels", "/channels", "Payment channels, newest first", asks(a.svc.Channels))
	get(a, "show-channel", "/channels/{channel}", "One payment channel", func(ctx context.Context, i *channelInput) (service.ChannelView, error) {
		return a.svc.Channel(ctx, i.Channel)
	})
	post(a, "close-channel", "/channels/{channel}/close", "Close a channel that came back with the phrase", func(ctx context.Context, i *channelInput) (service.ChannelView, error) {
		return a.svc.CloseChannel(ctx, i.Channel)
	})
	post(a, "roll-channel", "/channels/{channel}/roll", "Add money or time to a channel", func(ctx context.Context, i *rollInput) (service.Roll, error) {
		return a.svc.RollChannel(ctx, i.Channel, i.Body)
	})
}
