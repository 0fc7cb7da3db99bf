package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

// WalletBalance asks for the money.
func (c *Client) WalletBalance(ctx context.Context) (service.Balance, error) {
	return call[service.Balance](ctx, c, http.MethodGet, "/wallet", nil, nil)
}

// WalletHistory asks for the transactions.
func (c *Client) WalletHistory(ctx context.Context, h service.HistoryQuery) ([]service.Movement, error) {
	q := url.Values{"skip": {strconv.Itoa(h.Skip)}, "limit": {strconv.Itoa(h.Limit)}, "txid": {h.TxID}}
	return call[[]service.Movement](ctx, c, http.MethodGet, "/wallet/history", q, nil)
}

// WalletCoins asks for the coins.
func (c *Client) WalletCoins(ctx context.Context, part service.CoinQuery) ([]service.Coin, error) {
	q := url.Values{"skip": {strconv.Itoa(part.Skip)}, "limit": {strconv.Itoa(part.Limit)}}
	return call[[]service.Coin](ctx, c, http.MethodGet, "/wallet/coins", q, nil)
}

// WalletAccounts asks for the accounts.
func (c *Client) WalletAccounts(ctx context.Context) ([]service.WalletAccount, error) {
	return call[[]service.WalletAccount](ctx, c, http.MethodGet, "/wallet/accounts", nil, nil)
}

// WalletLock locks the wallet.
func (c *Client) WalletLock(ctx context.Context) (service.LockState, error) {
	return call[service.LockState](ctx, c, http.MethodPost, "/wallet/lock", nil, nil)
}

// Channels asks for the channels.
func (c *Client) Channels(ctx context.Context) ([]service.ChannelView, error) {
	return call[[]service.ChannelView](ctx, c, http.MethodGet, "/channels", nil, nil)
}

// CloseChannel closes a channel that came back with the phrase.
func (c *Client) CloseChannel(ctx context.Context, name string) (service.ChannelView, error) {
	return call[service.ChannelView](ctx, c, http.MethodPost, "/channels/"+url.PathEscape(name)+"/close", nil, nil)
}

// RollChannel adds money or time to a channel.
func (c *Client) RollChannel(ctx context.Context, name string, r service.RollRequest) (service.Roll, error) {
	return call[service.Roll](ctx, c, http.MethodPost, "/channels/"+url.PathEscape(name)+"/roll", nil, r)
}

// Channel asks for one channel.
func (c *Client) Channel(ctx context.Context, name string) (service.ChannelView, error) {
	return call[service.ChannelView](ctx, c, http.MethodGet, "/channels/"+url.PathEscape(name), nil, nil)
}

// WalletPlan asks what a payment would cost.
func (c *Client) WalletPlan(ctx context.Context, r service.PaymentRequest) (service.Plan, error) {
	return call[service.Plan](ctx, c, http.MethodPost, "/wallet/plans", nil, r)
}

// WalletSend makes a payment.
func (c *Client) WalletSend(ctx context.Context, r service.PaymentRequest) (service.Payment, error) {
	return call[service.Payment](ctx, c, http.MethodPost, "/wallet/payments", nil, r)
}

// WalletReplace raises a payment's fee.
func (c *Client) WalletReplace(ctx context.Context, r service.ReplaceRequest) (service.Payment, error) {
	return call[service.Payment](ctx, c, http.MethodPost, "/wallet/replacements", nil, r)
}

// WalletFreeze sets a coin aside, or back.
func (c *Client) WalletFreeze(ctx context.Context, r service.FreezeRequest) (service.FreezeRequest, error) {
	return call[service.FreezeRequest](ctx, c, http.MethodPost, "/wallet/coins/freeze", nil, r)
}

// WalletLabel names an address or a transaction.
func (c *Client) WalletLabel(ctx context.Context, r service.LabelRequest) (service.LabelRequest, error) {
	return call[service.LabelRequest](ctx, c, http.MethodPost, "/wallet/labels", nil, r)
}

// WalletAddAccount makes the next account.
func (c *Client) WalletAddAccount(ctx context.Context, r service.AccountRequest) (service.WalletAccount, error) {
	return call[service.WalletAccount](ctx, c, http.MethodPost, "/wallet/accounts", nil, r)
}

// WalletSweep takes what a private key holds.
func (c *Client) WalletSweep(ctx context.Context, r service.SweepRequest) (service.Sweep, error) {
	return call[service.Sweep](ctx, c, http.MethodPost, "/wallet/sweeps", nil, r)
}

// WalletUnlock gives the password.
func (c *Client) WalletUnlock(ctx context.Context, r service.UnlockRequest) (service.LockState, error) {
	return call[service.LockState](ctx, c, http.MethodPost, "/wallet/unlock", nil, r)
}

// WalletPassword changes the password.
func (c *Client) WalletPassword(ctx context.Context, r service.PasswordRequest) (service.LockState, error) {
	return call[service.LockState](ctx, c, http.MethodPost, "/wallet/password", nil, r)
}

// WalletAddress asks for a fresh address.
func (c *Client) WalletAddress(ctx context.Context, r service.AddressRequest) (service.Address, error) {
	return call[service.Address](ctx, c, http.MethodPost, "/wallet/addresses", nil, r)
}
