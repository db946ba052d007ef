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
	// responseTimeout is longer than a disk needs to write what a freeze flushes.
	responseTimeout = 30 * time.Second
)

// freezeResponse is what a node says first about a volume that it was asked to hold,
// and then about its release.
type freezeResponse struct {
	Quiesced bool   `json:"still,omitempty"`
	Error    string `json:"error,omitempty"`
	// Thawed is true when Error is that somebody else thawed it.
	Thawed bool `json:"thawed,omitempty"`
}

// quiesce holds a volume's image still, or that of a snapshot, which nobody uses.
func (s *Store) quiesce(image string) (disk.Freeze, error) {
	freeze, err := s.freezer.Quiesce(image)
	if err != nil || freeze.Quiesced {
		return freeze, err
	}
	a, err := s.Attached(strings.TrimSuffix(filepath.Base(image), imageSuffix))
	if err != nil || a == nil || a.Node == s.node {
		return freeze, err
	}
	remote, err := s.freezeOnNode(a.Node, strings.TrimSuffix(filepath.Base(image), imageSuffix))
	if errors.Is(err, errNodeUnreachable) {
		return freeze, nil // It is copied as what is not held still.
	}
	return remote, err
}

// errNodeUnreachable is a node whose driver does not run.
var errNodeUnreachable = errors.New("nobody answers")

// freezeOnNode asks a node to hold a volume still.
func (s *Store) freezeOnNode(node, id string) (disk.Freeze, error) {
	conn, err := withShortPath(s.nodesDir(), node+socketSuffix, dialUnix)
	if err != nil {
		return disk.Freeze{}, fmt.Errorf("asking node %s to hold volume %s still: %w: %w", node, id, errNodeUnreachable, err)
	}
	decoder := json.NewDecoder(conn)
	send := func(line string) (freezeResponse, error) {
		var response freezeResponse
		err := conn.SetDeadline(time.Now().Add(responseTimeout))
		if err == nil {
			_, err = fmt.Fprintln(conn, line)
		}
		if err == nil {
			err = decoder.Decode(&response)
		}
		if err == nil && response.Error != "" {
			err = errors.New(response.Error)
		}
		if response.Thawed {
			err = fmt.Errorf("%w: %w", disk.ErrThawed, err)
		}
		return response, err
	}
	response, err := send(id)
	if err != nil {
		return disk.Freeze{}, errors.Join(fmt.Errorf("%w: node %s could not hold volume %s still: %w", ErrInUse, node, id, err), conn.Close())
	}
	return disk.Freeze{Quiesced: response.Quiesced, Thaw: func() error {
		_, err := send("release")
		if err != nil {
			err = fmt.Errorf("%w: node %s did not hold volume %s still to the end: %w", ErrInUse, node, id, err)
		}
		return errors.Join(err, conn.Close())
	}}, nil
}

// withShortPath calls f with a path that is short enough for a socket, however deep the
// folder is.
func withShortPath[T any](dir, name string, f func(path string) (T, error)) (T, error) {
	d, err := os.Open(dir)
	if err != nil {
		var none T
		return none, err
	}
	defer d.Close()
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name))
}

// FreezeServer is where a node is asked to hold volumes still.
type FreezeServer struct {
	store    *Store
	listener *net.UnixListener
	locks    keyLocks // of this kind of work: who asks has the volume's own
}

// NewFreezeServer makes the socket of this process's node. One that a dead process left
// is replaced.
func (s *Store) NewFreezeServer() (*FreezeServer, error) {
	name := s.node + socketSuffix
	if err := os.Remove(filepath.Join(s.nodesDir(), name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing an old socket: %w", err)
	}
	listener, err := withShortPath(s.nodesDir(), name, func(path string) (*net.UnixListener, error) {
		return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	})
	if err != nil {
		return nil, fmt.Errorf("listening in %s: %w", s.nodesDir(), err)
	}
	listener.SetUnlinkOnClose(false) // It has another path by then.
	return &FreezeServer{store: s, listener: listener, locks: keyLocks{held: map[string]chan struct{}{}}}, nil
}

// Serve answers until ctx ends, and returns when all that was held is released.
func (h *FreezeServer) Serve(ctx context.Context) error {
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
			h.serveConn(ctx, conn)
		})
	}
}

// serveConn holds one volume for as long as its caller wants, is there, and may.
func (h *FreezeServer) serveConn(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, h.store.maxFreeze)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	lines := bufio.NewScanner(conn)
	if !lines.Scan() {
		return
	}
	freeze, done, err := h.freeze(ctx, lines.Text())
	if err != nil {
		respond(conn, freezeResponse{Error: err.Error()})
		return
	}
	defer done()
	respond(conn, freezeResponse{Quiesced: freeze.Quiesced})
	var ended error
	if !lines.Scan() {
		ended = errFreezeTimeout // Nobody reads this if it was the caller who left.
	}
	last := freezeResponse{}
	if err := errors.Join(ended, freeze.Thaw()); err != nil {
		last.Error, last.Thawed = err.Error(), errors.Is(err, disk.ErrThawed)
	}
	respond(conn, last)
}

// freeze waits until an earlier caller's hold on the volume is released: a second
// freeze would end with the first.
func (h *FreezeServer) freeze(ctx context.Context, id string) (freeze disk.Freeze, done func(), err error) {
	if !volumeID.MatchString(id) {
		return freeze, nil, fmt.Errorf("volume %q: %w", id, ErrNotFound)
	}
	unlock, err := h.locks.lock(ctx, id)
	if err != nil {
		return freeze, nil, err
	}
	freeze, err = h.store.freezer.Quiesce(h.store.volumes.image(id))
	if err != nil {
		unlock()
		return freeze, nil, err
	}
	return freeze, unlock, nil
}

// respond may find nobody, who then does not care.
func respond(conn net.Conn, response freezeResponse) {
	_ = conn.SetWriteDeadline(time.Now().Add(responseTimeout))
	_ = json.NewEncoder(conn).Encode(response)
}

func dialUnix(path string) (net.Conn, error) { return net.Dial("unix", path) }
