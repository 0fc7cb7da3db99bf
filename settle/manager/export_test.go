package manager

import (
	"context"
	"errors"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

func init() { lateLimit = 5 * time.Minute }

// RefusalBytes is how an error is answered with, on /pktcloud/late/1,
// /pktcloud/resume/1 and where a roll is asked for.
func RefusalBytes(err error) ([]byte, error) {
	b, err := pktcloud.Marshal(refusalOf(err))
	return append([]byte{answerRefuse}, b...), err
}

// Refused is what the reader of such an answer makes of it.
func Refused(answer []byte) error { return lateRefused(answer) }

// Look does for the tests what Run does at a block, without its goroutine.
func (m *Manager) Look(ctx context.Context) error {
	tip, err := m.cfg.Ledger.Tip(ctx)
	if err == nil {
		err = m.look(ctx, tip)
	}
	if errors.Is(err, settle.ErrLedgerUnavailable) {
		m.mu.Lock()
		m.sight.Lost = true
		m.mu.Unlock()
	}
	return err
}

// JudgeRolls takes all places in which rolls are judged, until free is called.
func (m *Manager) JudgeRolls() (free func()) {
	for range MaxRollJudgements {
		m.judging <- struct{}{}
	}
	return func() {
		for range MaxRollJudgements {
			<-m.judging
		}
	}
}
