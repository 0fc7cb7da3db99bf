//go:build cgo && amd64

package libcontainer

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

// mail holds the signals that the program of an engine has not got yet: while
// it is frozen nobody inside takes them. As with the machine's own, one of each
// number waits.
type mail struct {
	mu      sync.Mutex
	waiting []*letter
}

// letter is one signal on its way.
type letter struct {
	signal container.Signal
	done   chan struct{}
	err    error
}

// signalPatience is how long a kernel inside may take for a signal. One that takes
// none must not keep whoever wants to end it.
const signalPatience = 5 * time.Second

// signalEngine sends a signal to the first program. It returns when that has it,
// or will have it: it is paused, or slow.
func (m *monitor) signalEngine(s container.Signal) error {
	if s == container.SIGKILL {
		if err := m.init.Signal(unix.SIGKILL); err != nil {
			return m.signalError(err)
		}
		return m.cgroups.thaw()
	}
	l := m.post(s)
	for deadline := time.Now().Add(signalPatience); ; {
		select {
		case <-l.done:
			return m.signalError(l.err)
		case <-time.After(10 * time.Millisecond):
			if m.cgroups.paused() || time.Now().After(deadline) {
				return nil
			}
		}
	}
}

func (m *monitor) signalError(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return &container.Error{Code: container.CodeNotRunning, Detail: m.rec.Spec.ID}
	}
	return err
}

// post adds a letter. The first one is carried by a goroutine, which then takes
// the others along.
func (m *monitor) post(s container.Signal) *letter {
	m.mail.mu.Lock()
	defer m.mail.mu.Unlock()
	for _, l := range m.mail.waiting {
		if l.signal == s {
			return l
		}
	}
	l := &letter{signal: s, done: make(chan struct{})}
	m.mail.waiting = append(m.mail.waiting, l)
	if len(m.mail.waiting) == 1 {
		m.execs.Go(m.deliver)
	}
	return l
}

// deliver carries one letter after another. It ends with the program at the
// latest, whose end is what Signal says then.
func (m *monitor) deliver() {
	for {
		m.mail.mu.Lock()
		l := m.mail.waiting[0]
		m.mail.mu.Unlock()
		l.err = m.init.Signal(unix.Signal(l.signal))
		close(l.done)
		m.mail.mu.Lock()
		m.mail.waiting = m.mail.waiting[1:]
		more := len(m.mail.waiting) > 0
		m.mail.mu.Unlock()
		if !more {
			return
		}
	}
}
