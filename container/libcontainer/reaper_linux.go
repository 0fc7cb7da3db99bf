//go:build cgo && amd64

package libcontainer

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// reaper waits for monitors that this process started, so that none stays a
// zombie, and lets go of those that outlive it. One goroutine does it all.
type reaper struct {
	wake [2]int // a pipe: something was added, or the end
	done chan struct{}

	mu     sync.Mutex
	pids   map[int]int // by pidfd
	closed bool
}

// dyingPatience is how long close waits for one that is ending.
const dyingPatience = 10 * time.Second

func newReaper() (*reaper, error) {
	r := &reaper{done: make(chan struct{}), pids: map[int]int{}}
	if err := unix.Pipe2(r.wake[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	go r.run()
	return r, nil
}

// add takes over a child. pidfd is -1 where the kernel has none.
func (r *reaper) add(pid, pidfd int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if pidfd < 0 || r.closed {
		return errors.New("the monitor cannot be waited for")
	}
	r.pids[pidfd] = pid
	r.poke()
	return nil
}

func (r *reaper) poke() { _, _ = unix.Write(r.wake[1], []byte{0}) }

func (r *reaper) run() {
	defer close(r.done)
	for {
		polls := []unix.PollFd{{Fd: int32(r.wake[0]), Events: unix.POLLIN}}
		r.mu.Lock()
		for fd := range r.pids {
			polls = append(polls, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
		closed := r.closed
		r.mu.Unlock()
		if closed {
			return
		}
		if _, err := unix.Poll(polls, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		r.collect(polls)
	}
}

func (r *reaper) collect(polls []unix.PollFd) {
	var buf [64]byte
	if polls[0].Revents != 0 {
		_, _ = unix.Read(r.wake[0], buf[:])
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range polls[1:] {
		if p.Revents == 0 {
			continue
		}
		_, _ = unix.Wait4(r.pids[int(p.Fd)], nil, unix.WNOHANG, nil)
		delete(r.pids, int(p.Fd))
		_ = unix.Close(int(p.Fd))
	}
}

func (r *reaper) close() error {
	r.mu.Lock()
	again := r.closed
	r.closed = true
	r.poke()
	r.mu.Unlock()
	<-r.done
	if again {
		return nil
	}
	for fd, pid := range r.pids {
		if dying(pid) { // it has let go of its container, and on a busy machine ends a moment later
			_ = uninterrupted(func() error {
				_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(dyingPatience/time.Millisecond))
				return err
			})
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
		_ = unix.Close(fd)
	}
	return errors.Join(unix.Close(r.wake[0]), unix.Close(r.wake[1]))
}
