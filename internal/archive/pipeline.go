package archive

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
)

const (
	// workers is how many goroutines compress and encrypt. An agent must leave processors to
	// the workload of its node.
	workers = 2
	// inFlight is how many frames exist. Each takes two buffers of the frame size.
	inFlight = 8 * workers
)

// A frame is a piece of a file on its way through the pipeline.
type frame struct {
	label  label
	plain  []byte // capacity is the frame size
	stored []byte
	tag    [tagSize]byte
	done   chan struct{} // receives one value when stored is ready
}

// A pipeline compresses, seals and writes frames. Frames are compressed concurrently, and
// written in the order in which they were submitted.
type pipeline struct {
	sealer  sealer
	write   func([]byte) error
	free    chan *frame
	work    chan *frame
	ordered chan *frame
	next    uint64 // number of the next frame
	wait    sync.WaitGroup
	failure atomic.Pointer[error] // the first error of write
	table   frameTable
}

// A frameTable collects what the index says about frames.
type frameTable struct {
	sizes  []byte // for each frame the codec and the two lengths
	tags   []byte
	stored uint64 // bytes of all frames
}

func (t *frameTable) add(f *frame) {
	t.sizes = append(t.sizes, f.label.codec)
	t.sizes = binary.AppendUvarint(t.sizes, uint64(len(f.stored)))
	t.sizes = binary.AppendUvarint(t.sizes, uint64(f.label.plain))
	t.tags = append(t.tags, f.tag[:]...)
	t.stored += uint64(len(f.stored))
}

func newPipeline(frameSize int, sealer sealer, write func([]byte) error) (*pipeline, error) {
	p := &pipeline{
		sealer: sealer, write: write,
		free: make(chan *frame, inFlight), work: make(chan *frame, inFlight), ordered: make(chan *frame, inFlight),
	}
	compressors := make([]*zstd.Encoder, workers)
	for i := range compressors {
		c, err := newCompressor(frameSize)
		if err != nil {
			return nil, err
		}
		compressors[i] = c
	}
	for range inFlight {
		p.free <- &frame{
			plain: make([]byte, 0, frameSize),
			// Incompressible data become longer before they are left uncompressed.
			stored: make([]byte, 0, frameSize+frameSize/64+64),
			done:   make(chan struct{}, 1),
		}
	}
	for _, c := range compressors {
		p.wait.Go(func() { p.compress(c) })
	}
	p.wait.Go(p.writeInOrder)
	return p, nil
}

// get waits for a free frame.
func (p *pipeline) get(ctx context.Context) (*frame, error) {
	if err := p.err(); err != nil {
		return nil, err
	}
	select {
	case f := <-p.free:
		f.plain = f.plain[:0]
		return f, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// submit hands over a frame whose plain is filled.
func (p *pipeline) submit(f *frame) {
	f.label = label{kind: sealedFrame, number: p.next, plain: uint32(len(f.plain))}
	p.next++
	p.ordered <- f // never blocks: there are no more frames than places
	p.work <- f
}

// close waits until all frames are written, and ends the goroutines.
func (p *pipeline) close() error {
	close(p.work)
	close(p.ordered)
	p.wait.Wait()
	return p.err()
}

func (p *pipeline) err() error {
	if err := p.failure.Load(); err != nil {
		return *err
	}
	return nil
}

func (p *pipeline) compress(c *zstd.Encoder) {
	for f := range p.work {
		f.stored = c.EncodeAll(f.plain, f.stored[:0])
		data := f.stored
		f.label.codec = codecZstd
		if len(data) >= len(f.plain) {
			data, f.label.codec = f.plain, codecNone
		}
		f.stored, f.tag = p.sealer.seal(f.label, f.stored, data)
		f.done <- struct{}{}
	}
}

func (p *pipeline) writeInOrder() {
	for f := range p.ordered {
		<-f.done
		if p.err() == nil {
			p.table.add(f)
			if err := p.write(f.stored); err != nil {
				p.failure.Store(&err)
			}
		}
		p.free <- f
	}
}
