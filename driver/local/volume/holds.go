package volume

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/driver/local/disk"
)

// Where nodes share the data directory, a filesystem is frozen by the node that has
// it mounted: nobody else sees the mount. The process that copies asks it through a
// socket beside the node's record, with one connection for each volume: a line
// with the ID, an answer, a line to release it, an answer. Both are on one machine,
// so that a connection ends exactly when one of them does, and a volume whose
// caller is gone is released.

const (
	socketSuffix = ".sock"
	// answerTime is longer than a disk needs to write what a freeze flushes.
	answerTime = 30 * time.Second
)

// holdAnswer is what a node says first about a volume that it was asked to hold,
// and then about its release.
type holdAnswer struct {
	Still bool   `json:"still,omitempty"`
	Error string `json:"error,omitempty"`
	// Thawed is true when Error is that somebody else thawed it.
	Thawed bool `json:"thawed,omitempty"`
}

// quiesce holds a volume's image still, or that of a snapshot, which nobody uses.
func (s *Store) quiesce(image string) (disk.Hold, error) {
	hold, err := s.freezer.Quiesce(image)
	if err != nil || hold.Still {
		return hold, err
	}
	a, err := s.Attached(strings.TrimSuffix(filepath.Base(image), imageSuffix))
	if err != nil || a == nil || a.Node == s.node {
		return hold, err
	}
	there, err := s.holdOn(a.Node, strings.TrimSuffix(filepath.Base(image), imageSuffix))
	if errors.Is(err, errNobody) {
		return hold, nil // It is copied as what is not held still.
	}
	return there, err
}

// errNobody is a node whose driver does not run.
var errNobody = errors.New("nobody answers")

// holdOn asks a node to hold a volume still.
func (s *Store) holdOn(node, id string) (disk.Hold, error) {
	conn, err := inFolder(s.nodesDir(), node+socketSuffix, dialUnix)
	if err != nil {
		return disk.Hold{}, fmt.Errorf("asking node %s to hold volume %s still: %w: %w", node, id, errNobody, err)
	}
	answers := json.NewDecoder(conn)
	ask := func(line string) (holdAnswer, error) {
		var answer holdAnswer
		err := conn.SetDeadline(time.Now().Add(answerTime))
		if err == nil {
			_, err = fmt.Fprintln(conn, line)
		}
		if err == nil {
			err = answers.Decode(&answer)
		}
		if err == nil && answer.Error != "" {
			err = errors.New(answer.Error)
		}
		if answer.Thawed {
			err = fmt.Errorf("%w: %w", disk.ErrThawed, err)
		}
		return answer, err
	}
	answer, err := ask(id)
	if err != nil {
		return disk.Hold{}, errors.Join(fmt.Errorf("%w: node %s could not hold volume %s still: %w", ErrInUse, node, id, err), conn.Close())
	}
	return disk.Hold{Still: answer.Still, Release: func() error {
		_, err := ask("release")
		if err != nil {
			err = fmt.Errorf("%w: node %s did not hold volume %s still to the end: %w", ErrInUse, node, id, err)
		}
		return errors.Join(err, conn.Close())
	}}, nil
}

// inFolder calls f with a path that is short enough for a socket, however deep the
// folder is.
func inFolder[T any](dir, name string, f func(path string) (T, error)) (T, error) {
	d, err := os.Open(dir)
	if err != nil {
		var none T
		return none, err
	}
	defer d.Close()
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name))
}

// Holds is where a node is asked to hold volumes still.
type Holds struct {
	store    *Store
	listener *net.UnixListener
	locks    keyLocks // of this kind of work: who asks has the volume's own
}

// ListenForHolds makes the socket of this process's node. One that a dead process left
// is replaced.
func (s *Store) ListenForHolds() (*Holds, error) {
	name := s.node + socketSuffix
	if err := os.Remove(filepath.Join(s.nodesDir(), name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing an old socket: %w", err)
	}
	listener, err := inFolder(s.nodesDir(), name, func(path string) (*net.UnixListener, error) {
		return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	})
	if err != nil {
		return nil, fmt.Errorf("listening in %s: %w", s.nodesDir(), err)
	}
	listener.SetUnlinkOnClose(false) // It has another path by then.
	return &Holds{store: s, listener: listener, locks: keyLocks{held: map[string]chan struct{}{}}}, nil
}

// Serve answers until ctx ends, and returns when all that was held is released.
func (h *Holds) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = h.listener.Close() })
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	for {
		conn, err := h.listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("waiting to be asked to hold volumes: %w", err)
		}
		all.Go(func() {
			defer func() { _ = conn.Close() }()
			h.serve(ctx, conn)
		})
	}
}

// serve holds one volume for as long as its caller wants, is there, and may.
func (h *Holds) serve(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, h.store.longest)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	lines := bufio.NewScanner(conn)
	if !lines.Scan() {
		return
	}
	hold, done, err := h.take(ctx, lines.Text())
	if err != nil {
		reply(conn, holdAnswer{Error: err.Error()})
		return
	}
	defer done()
	reply(conn, holdAnswer{Still: hold.Still})
	var ended error
	if !lines.Scan() {
		ended = errTooLong // Nobody reads this if it was the caller who left.
	}
	last := holdAnswer{}
	if err := errors.Join(ended, hold.Release()); err != nil {
		last.Error, last.Thawed = err.Error(), errors.Is(err, disk.ErrThawed)
	}
	reply(conn, last)
}

// take waits until an earlier caller's hold on the volume is released: a second
// freeze would end with the first.
func (h *Holds) take(ctx context.Context, id string) (hold disk.Hold, done func(), err error) {
	if !volumeID.MatchString(id) {
		return hold, nil, fmt.Errorf("volume %q: %w", id, ErrNotFound)
	}
	unlock, err := h.locks.lock(ctx, id)
	if err != nil {
		return hold, nil, err
	}
	hold, err = h.store.freezer.Quiesce(h.store.volumes.image(id))
	if err != nil {
		unlock()
		return hold, nil, err
	}
	return hold, unlock, nil
}

// reply may find nobody, who then does not care.
func reply(conn net.Conn, answer holdAnswer) {
	_ = conn.SetWriteDeadline(time.Now().Add(answerTime))
	_ = json.NewEncoder(conn).Encode(answer)
}

func dialUnix(path string) (net.Conn, error) { return net.Dial("unix", path) }
