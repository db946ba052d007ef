package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// A framer cuts a file into frames.
type framer struct {
	ctx      context.Context //nolint:containedctx // a framer lives as long as one call of Add
	pipeline *pipeline
	current  *frame
}

func (f *framer) Write(b []byte) (int, error) {
	n, err := f.ReadFrom(bytes.NewReader(b))
	return int(n), err
}

// ReadFrom reads into the buffers of frames, without another copy.
func (f *framer) ReadFrom(r io.Reader) (read int64, err error) {
	for {
		if f.current == nil {
			if f.current, err = f.pipeline.get(f.ctx); err != nil {
				return read, err
			}
		}
		plain := f.current.plain
		n, err := io.ReadFull(r, plain[len(plain):cap(plain)])
		f.current.plain = plain[:len(plain)+n]
		read += int64(n)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return read, nil
		case err != nil:
			return read, err
		}
		f.pipeline.submit(f.current)
		f.current = nil
	}
}

// flush ends the file.
func (f *framer) flush() {
	switch {
	case f.current == nil:
	case len(f.current.plain) > 0:
		f.pipeline.submit(f.current)
	default:
		f.pipeline.free <- f.current
	}
	f.current = nil
}

// A pageWriter cuts a pages file into frames without its pages of zeros.
type pageWriter struct {
	pipeline *pipeline
	layout   layout
	source   io.Reader
	current  *frame
	runs     runEncoder
	total    int64 // pages
}

// readSize is how much of a pages file is read at once: a file that is mostly zeros must not
// be read page by page.
const readSize = 64 << 10

var zeroPage [64 << 10]byte // the largest page

func (p *pageWriter) run(ctx context.Context) error {
	buffer := make([]byte, readSize)
	for {
		n, err := io.ReadFull(p.source, buffer)
		if addErr := p.add(ctx, buffer[:n]); addErr != nil {
			return addErr
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			p.flush()
			return nil
		case err != nil:
			return err
		}
	}
}

func (p *pageWriter) add(ctx context.Context, pages []byte) (err error) {
	size := p.layout.pageSize
	for ; len(pages) >= size; pages = pages[size:] {
		page := pages[:size]
		p.total++
		if bytes.Equal(page, zeroPage[:size]) {
			p.runs.append(runZero, 1)
			continue
		}
		if p.current == nil {
			if p.current, err = p.pipeline.get(ctx); err != nil {
				return err
			}
		}
		p.runs.append(runStored, 1)
		p.current.plain = append(p.current.plain, page...)
		if len(p.current.plain) == p.layout.frameSize {
			p.flush()
		}
	}
	return ctx.Err()
}

func (p *pageWriter) flush() {
	if p.current != nil {
		p.pipeline.submit(p.current)
		p.current = nil
	}
}

// A sizedReader reads a file of known size. A file that became shorter is an error.
type sizedReader struct {
	r          io.Reader
	left, size int64
}

func (s *sizedReader) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.r.Read(b[:min(int64(len(b)), s.left)])
	s.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = nil
		if s.left > 0 {
			err = fmt.Errorf("it has %d bytes, and %d were announced", s.size-s.left, s.size)
		}
	}
	return n, err
}

// end reports whether the file ends after its size.
func (s *sizedReader) end() error {
	if n, _ := io.ReadFull(s.r, make([]byte, 1)); n > 0 {
		return fmt.Errorf("it has more than the %d bytes that were announced", s.size)
	}
	return nil
}
