package proxy

import (
	"io"
	"net/http"
	"time"
)

// delayedBody delivers a stream with a delay.
type delayedBody struct {
	source    io.ReadCloser
	chunks    chan chunk
	closed    chan struct{}
	delay     time.Duration
	remaining []byte
}

type chunk struct {
	arrived time.Time
	bytes   []byte
	err     error
}

func newDelayedBody(source io.ReadCloser, pause time.Duration) *delayedBody {
	l := &delayedBody{source: source, chunks: make(chan chunk, 1024), closed: make(chan struct{}), delay: pause}
	go l.collect()
	return l
}

// collect records when each chunk of the stream arrives.
func (l *delayedBody) collect() {
	for {
		buffer := make([]byte, 32<<10)
		n, err := l.source.Read(buffer)
		if !l.push(chunk{arrived: time.Now(), bytes: buffer[:n]}) {
			return
		}
		if err != nil { // The error may come with the last bytes.
			l.push(chunk{arrived: time.Now(), err: err})
			return
		}
	}
}

// push reports whether the stream is still read.
func (l *delayedBody) push(p chunk) bool {
	select {
	case l.chunks <- p:
		return true
	case <-l.closed:
		return false
	}
}

// Read waits until the next chunk is old enough.
func (l *delayedBody) Read(into []byte) (int, error) {
	for len(l.remaining) == 0 {
		var next chunk
		select {
		case next = <-l.chunks:
		case <-l.closed:
			return 0, http.ErrBodyReadAfterClose
		}
		due := time.NewTimer(time.Until(next.arrived.Add(l.delay)))
		select {
		case <-due.C:
		case <-l.closed:
			due.Stop()
			return 0, http.ErrBodyReadAfterClose
		}
		if next.err != nil {
			return 0, next.err
		}
		l.remaining = next.bytes
	}
	n := copy(into, l.remaining)
	l.remaining = l.remaining[n:]
	return n, nil
}

// Close ends the stream.
func (l *delayedBody) Close() error {
	close(l.closed)
	return l.source.Close()
}
