package archive

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"sync"
)

// A RangeReader is an [io.ReaderAt] that reads a part of an archive with fewer requests than
// as many calls of ReadAt. Objects of stores may have it.
type RangeReader interface {
	NewReader(offset, length int64) (io.ReadCloser, error)
}

const streamBuffer = 1 << 20

// section returns a reader of a part of the archive.
func (a *Reader) section(offset, length int64) (io.ReadCloser, error) {
	if ranged, ok := a.r.(RangeReader); ok {
		r, err := ranged.NewReader(offset, length)
		if err != nil {
			return nil, fmt.Errorf("reading the archive from %d on: %w", offset, err)
		}
		return r, nil
	}
	return io.NopCloser(bufio.NewReaderSize(io.NewSectionReader(a.r, offset, length), int(min(length, streamBuffer)))), nil
}

// A stream reads consecutive frames. It decrypts and decompresses them concurrently, and
// returns them in order.
type stream struct {
	reader  *Reader
	ctx     context.Context //nolint:containedctx // a stream lives as long as one call
	cancel  context.CancelFunc
	ordered chan *opening
	free    chan *opening
	current *opening // was returned last
	largest int      // frame, in bytes
	ended   chan struct{}
}

// An opening is a frame on its way through a stream.
type opening struct {
	number        int
	stored, plain []byte
	err           error
	done          chan struct{}
}

// stream starts to read the frames from first to the one before last. The caller closes it.
func (a *Reader) stream(ctx context.Context, first, last int) (*stream, error) {
	return a.streamThrough(ctx, first, last, func(r io.Reader) io.Reader { return r })
}

// streamThrough reads the stored frames through a reader that the caller makes.
func (a *Reader) streamThrough(ctx context.Context, first, last int, through func(io.Reader) io.Reader) (*stream, error) {
	s := &stream{
		reader: a, ordered: make(chan *opening, inFlight), free: make(chan *opening, inFlight), ended: make(chan struct{}),
	}
	source := io.NopCloser(io.Reader(nil))
	if first < last {
		start := a.contents.frames[first].offset
		end := a.contents.frames[last-1]
		var err error
		if source, err = a.section(a.frames+start, end.offset+int64(end.stored)-start); err != nil {
			return nil, err
		}
	}
	for _, f := range a.contents.frames[first:last] {
		s.largest = max(s.largest, int(f.plain))
	}
	for range inFlight {
		s.free <- &opening{done: make(chan struct{}, 1)}
	}
	s.ctx, s.cancel = context.WithCancel(ctx)
	go func() {
		defer close(s.ended)
		defer source.Close()
		s.read(through(source), first, last)
	}()
	return s, nil
}

// read reads stored frames and has workers open them.
func (s *stream) read(source io.Reader, first, last int) {
	defer close(s.ordered)
	work, wait := make(chan *opening, inFlight), sync.WaitGroup{}
	defer wait.Wait()
	defer close(work)
	for range workers {
		wait.Go(func() {
			for o := range work {
				s.open(o)
			}
		})
	}
	for number := first; number < last; number++ {
		var o *opening
		select {
		case o = <-s.free:
		case <-s.ctx.Done():
			return
		}
		o.number, o.err = number, nil
		o.fill(source, int(s.reader.contents.frames[number].stored), s.largest)
		s.ordered <- o // never blocks: there are no more openings than places
		if o.err != nil {
			o.done <- struct{}{}
			return
		}
		work <- o
	}
}

func (o *opening) fill(source io.Reader, stored, largest int) {
	if o.plain == nil {
		o.stored, o.plain = make([]byte, 0, largest+tagSize), make([]byte, 0, largest)
	}
	o.stored = o.stored[:stored]
	if _, err := io.ReadFull(source, o.stored); err != nil {
		o.err = fmt.Errorf("reading frame %d: %w", o.number, noEOF(err))
	}
}

func (s *stream) open(o *opening) {
	plain, err := s.reader.open(o.number, o.stored, o.plain)
	if err == nil {
		o.plain = o.plain[:len(plain)] // It is what was opened, with room for a larger frame.
	}
	o.err = err
	o.done <- struct{}{}
}

// next returns the contents of the next frame, which are valid until the next call.
func (s *stream) next() ([]byte, error) {
	if s.current != nil {
		s.free <- s.current
		s.current = nil
	}
	select {
	case o, ok := <-s.ordered:
		if !ok {
			return nil, io.ErrUnexpectedEOF
		}
		<-o.done
		s.current = o
		return o.plain, o.err
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// close ends the goroutines.
func (s *stream) close() {
	s.cancel()
	<-s.ended
}

// A destination receives the contents of a file.
type destination interface {
	io.Writer
	// zeros receives so many bytes that are 0.
	zeros(n int64) error
}

// copyFile copies the file that the stream has reached.
func (s *stream) copyFile(f *file, to destination) error {
	if err := s.copyContent(f, to); err != nil {
		return fmt.Errorf("reading %q: %w", f.info.Name, err)
	}
	return nil
}

func (s *stream) copyContent(f *file, to destination) error {
	rest := &frameReader{stream: s}
	if f.kind != filePages {
		return rest.copy(to, f.info.Size)
	}
	size := int64(s.reader.head.PageSize)
	return f.runs.each(func(r run) error {
		switch r.kind {
		case runZero:
			return to.zeros(int64(r.pages) * size)
		case runPredecessor:
			return &PredecessorError{Digest: s.reader.contents.predecessors[r.predecessor]}
		}
		return rest.copy(to, int64(r.pages)*size)
	})
}

// A frameReader joins frames.
type frameReader struct {
	stream *stream
	rest   []byte // of the current frame
}

func (f *frameReader) copy(to io.Writer, n int64) (err error) {
	for n > 0 {
		if len(f.rest) == 0 {
			if f.rest, err = f.stream.next(); err != nil {
				return err
			}
		}
		part := f.rest[:min(int64(len(f.rest)), n)]
		if _, err := to.Write(part); err != nil {
			return err
		}
		f.rest, n = f.rest[len(part):], n-int64(len(part))
	}
	return nil
}

// A filledWriter writes zeros as zeros.
type filledWriter struct{ io.Writer }

func (w filledWriter) zeros(n int64) error {
	for n > 0 {
		part := zeroPage[:min(n, int64(len(zeroPage)))]
		if _, err := w.Write(part); err != nil {
			return err
		}
		n -= int64(len(part))
	}
	return nil
}
