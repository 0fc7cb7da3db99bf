package lease

// Recover names what a side does after a restart, before anything else.
func (s State) Recover() []Effect {
	if s.Role == RoleTenant {
		switch s.Phase {
		case Agreed:
			return []Effect{Announce{}}
		case Refused:
			return []Effect{Abandon{}}
		case Proposed, Funded, Starting, Active, Suspended, Closing, Closed, Failed:
		}
		return nil
	}
	switch s.Phase {
	case Agreed:
		return []Effect{Announce{}}
	case Funded, Starting, Active:
		return append([]Effect{Start{}}, s.carryOn()...)
	case Suspended:
		return append([]Effect{Start{}, Freeze{}}, s.carryOn()...)
	case Closing:
		return []Effect{Stop{}}
	case Closed:
		if !s.Countersigned() {
			return []Effect{Stop{}, Conclude{s.Record}}
		}
		return []Effect{Stop{}}
	case Proposed, Refused, Failed:
	}
	return nil
}

// Reconnect names what a tenant does first on a new stream: it says how far it
// came, and sends again what may be lost.
func (s State) Reconnect() []Effect {
	attach := Send{Attach{Version: MessageVersion, Lease: s.Lease, Sequence: s.Sequence}}
	switch s.Phase {
	case Proposed:
		return []Effect{SendCommit{}}
	case Agreed, Funded, Starting, Active, Suspended:
		effects := append([]Effect{attach}, s.answers()...)
		if !s.Proposal.IsZero() {
			effects = append(effects, SendAmend{})
		}
		return effects
	case Closing:
		effects := append([]Effect{attach}, s.answers()...)
		if s.Final {
			return append(effects, OfferClose{s.Record})
		}
		return append(effects, Send{s.closeRequest()})
	case Closed, Refused, Failed:
	}
	return nil
}

// carryOn carries an amendment out that a crash interrupted [AMEND-5].
func (s State) carryOn() []Effect {
	if s.Proposal.IsZero() {
		return nil
	}
	return []Effect{Apply{}}
}

// answers repeats the answer to the last statement.
func (s State) answers() []Effect {
	var effects []Effect
	if s.Disputed > 0 && s.Disputed == s.Sequence {
		effects = append(effects, ObjectAgain{s.Sequence})
	}
	if s.Paid > 0 {
		effects = append(effects, SendVoucher{})
	}
	return append(effects, s.pay()...)
}

func (s State) closeRequest() CloseRequest {
	return CloseRequest{Version: MessageVersion, Lease: s.Lease, Reason: s.Reason, Text: Clip(s.Text)}
}
