package restore

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// A meter is an object that says how much was read of it.
type meter struct {
	store.Object
	place *ticket.Container
	now   func() time.Time
	read  atomic.Int64
	said  atomic.Int64 // when, in seconds
}

func (m *meter) ReadAt(p []byte, offset int64) (int, error) {
	n, err := m.Object.ReadAt(p, offset)
	m.add(n)
	return n, err
}

// NewReader implements [store.Object].
func (m *meter) NewReader(offset, length int64) (io.ReadCloser, error) {
	reader, err := m.Object.NewReader(offset, length)
	if err != nil {
		return nil, err
	}
	return &meteredReader{reader, m}, nil
}

// add says at most once a second how far it is.
func (m *meter) add(n int) {
	read, second := m.read.Add(int64(n)), m.now().Unix()
	if said := m.said.Load(); second == said || !m.said.CompareAndSwap(said, second) {
		return
	}
	percent := min(100, 100*read/max(1, m.Size()))
	// It is only for people: the restore goes on without it.
	_ = m.place.SetProgress(fmt.Sprintf("%d %% of %d MiB fetched and verified", percent, m.Size()>>20))
}

type meteredReader struct {
	io.ReadCloser
	meter *meter
}

func (r *meteredReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.meter.add(n)
	return n, err
}
