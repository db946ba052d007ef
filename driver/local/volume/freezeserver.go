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

// If nodes share the data directory, only the node that has mounted a filesystem sees
// the mount and can freeze it. The process that copies sends requests through a socket
// next to the node's record, with one connection per volume: a line with the ID, a
// response, a line to thaw it, a response. Both processes are on one machine, so a
// connection ends exactly when one of them does, and the node thaws a volume when its
// client is gone.

const (
	socketSuffix = ".sock"
	// responseTimeout is longer than a disk needs to write what a freeze flushes.
	responseTimeout = 30 * time.Second
)

// freezeResponse is a node's response to a request to freeze a volume, and to the
// following request to thaw it.
type freezeResponse struct {
	Quiesced bool   `json:"still,omitempty"`
	Error    string `json:"error,omitempty"`
	// Thawed is true if Error means that another process thawed the filesystem.
	Thawed bool `json:"thawed,omitempty"`
}

// quiesce quiesces the image of a volume, or of a snapshot, which nothing writes to.
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
		return freeze, nil // The image counts as not quiesced.
	}
	return remote, err
}

// errNodeUnreachable reports a node whose driver is not running.
var errNodeUnreachable = errors.New("its driver is not running")

// freezeOnNode requests a node to freeze a volume.
func (s *Store) freezeOnNode(node, id string) (disk.Freeze, error) {
	conn, err := withShortPath(s.nodesDir(), node+socketSuffix, dialUnix)
	if err != nil {
		return disk.Freeze{}, fmt.Errorf("requesting node %s to freeze volume %s: %w: %w", node, id, errNodeUnreachable, err)
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
		return disk.Freeze{}, errors.Join(fmt.Errorf("%w: node %s could not freeze volume %s: %w", ErrInUse, node, id, err), conn.Close())
	}
	return disk.Freeze{Quiesced: response.Quiesced, Thaw: func() error {
		_, err := send("release")
		if err != nil {
			err = fmt.Errorf("%w: node %s did not keep volume %s frozen to the end: %w", ErrInUse, node, id, err)
		}
		return errors.Join(err, conn.Close())
	}}, nil
}

// withShortPath calls f with a path that is short enough for a socket, however long
// dir is.
func withShortPath[T any](dir, name string, f func(path string) (T, error)) (T, error) {
	d, err := os.Open(dir)
	if err != nil {
		var none T
		return none, err
	}
	defer d.Close()
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name))
}

// FreezeServer serves requests to freeze volumes on this node.
type FreezeServer struct {
	store    *Store
	listener *net.UnixListener
	locks    keyLocks // separate from the store's: the client has the volume's lock there
}

// NewFreezeServer creates the socket of this process's node. It replaces one that a
// dead process left.
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
	listener.SetUnlinkOnClose(false) // The path is no longer valid then.
	return &FreezeServer{store: s, listener: listener, locks: keyLocks{held: map[string]chan struct{}{}}}, nil
}

// Serve handles requests until ctx ends. It returns when all volumes are thawed.
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
			return fmt.Errorf("accepting freeze requests: %w", err)
		}
		all.Go(func() {
			defer func() { _ = conn.Close() }()
			h.serveConn(ctx, conn)
		})
	}
}

// serveConn freezes one volume until its client sends the second line, disconnects, or
// exceeds the time limit.
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
		ended = errFreezeTimeout // Nothing reads this if the client disconnected.
	}
	last := freezeResponse{}
	if err := errors.Join(ended, freeze.Thaw()); err != nil {
		last.Error, last.Thawed = err.Error(), errors.Is(err, disk.ErrThawed)
	}
	respond(conn, last)
}

// freeze waits until an earlier client's freeze of the volume ends: a second freeze
// would be thawed together with the first.
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

// respond ignores errors: a client that has disconnected needs no response.
func respond(conn net.Conn, response freezeResponse) {
	_ = conn.SetWriteDeadline(time.Now().Add(responseTimeout))
	_ = json.NewEncoder(conn).Encode(response)
}

func dialUnix(path string) (net.Conn, error) { return net.Dial("unix", path) }
