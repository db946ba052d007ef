package proxy

import (
	"io"
	"net/http"
	"time"
)

// late delivers a stream some time after it has come.
type late struct {
	source io.ReadCloser
	pieces chan piece
	closed chan struct{}
	pause  time.Duration
	rest   []byte
}

type piece struct {
	came  time.Time
	bytes []byte
	err   error
}

func newLate(source io.ReadCloser, pause time.Duration) *late {
	l := &late{source: source, pieces: make(chan piece, 1024), closed: make(chan struct{}), pause: pause}
	go l.collect()
	return l
}

// collect notes when each piece of the stream has come.
func (l *late) collect() {
	for {
		buffer := make([]byte, 32<<10)
		n, err := l.source.Read(buffer)
		if !l.keep(piece{came: time.Now(), bytes: buffer[:n]}) {
			return
		}
		if err != nil { // It may come along with the last bytes.
			l.keep(piece{came: time.Now(), err: err})
			return
		}
	}
}

// keep tells whether somebody still reads.
func (l *late) keep(p piece) bool {
	select {
	case l.pieces <- p:
		return true
	case <-l.closed:
		return false
	}
}

// Read waits until the next piece is old enough.
func (l *late) Read(into []byte) (int, error) {
	for len(l.rest) == 0 {
		var next piece
		select {
		case next = <-l.pieces:
		case <-l.closed:
			return 0, http.ErrBodyReadAfterClose
		}
		due := time.NewTimer(time.Until(next.came.Add(l.pause)))
		select {
		case <-due.C:
		case <-l.closed:
			due.Stop()
			return 0, http.ErrBodyReadAfterClose
		}
		if next.err != nil {
			return 0, next.err
		}
		l.rest = next.bytes
	}
	n := copy(into, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

// Close ends the stream.
func (l *late) Close() error {
	close(l.closed)
	return l.source.Close()
}
