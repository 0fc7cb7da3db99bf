// Package tower keeps what ends a channel for an owner who is away: late claims
// of payees and refund ladders of payers, which it broadcasts once their lock
// time has come. A tower cannot change what it holds, nor use it early.
//
// A tower runs by [New] and [Tower.Run] and answers connections by
// [Tower.Serve]. Its client is [Dial]; [NewDepositor] keeps several towers
// supplied. The rules are those of spec/tower.md; what a deposit is worth, and
// when a payee should make one, is decided by packages settle and
// settle/manager.
package tower
