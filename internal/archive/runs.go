package archive

import (
	"encoding/binary"
	"math"
	"sort"
)

// Kinds of runs of pages.
const (
	runZero        = 0 // all bytes are 0, and nothing is stored
	runStored      = 1 // the next pages of the next level: of the frames, or of the pages file
	runPredecessor = 2 // in an earlier archive; followed by where
	runKindBits    = 3
)

// A runEncoder encodes which pages are where as a list of runs, in constant memory for each
// run. With gaps, each run is preceded by the number of pages left out.
type runEncoder struct {
	gaps    bool
	encoded []byte
	gap     uint64
	kind    byte
	pages   uint64 // of the run that has not been encoded yet
	stored  uint64 // pages of kind runStored
}

func (e *runEncoder) append(kind byte, pages uint64) {
	if pages == 0 {
		return
	}
	if kind != e.kind {
		e.flush()
		e.kind = kind
	}
	e.pages += pages
	if kind == runStored {
		e.stored += pages
	}
}

// skip leaves out pages.
func (e *runEncoder) skip(pages uint64) {
	if pages > 0 {
		e.flush()
		e.gap += pages
	}
}

func (e *runEncoder) flush() {
	if e.pages == 0 {
		return
	}
	if e.gaps {
		e.encoded = binary.AppendUvarint(e.encoded, e.gap)
	}
	e.encoded = binary.AppendUvarint(e.encoded, e.pages<<runKindBits|uint64(e.kind))
	e.gap, e.pages = 0, 0
}

// bytes returns the encoded runs.
func (e *runEncoder) bytes() []byte {
	e.flush()
	return e.encoded
}

// A run is a range of pages of one kind.
type run struct {
	kind         byte
	start, pages uint64
	// stored is how many stored pages precede the run.
	stored uint64
	// For runPredecessor: its number, and the file and the page in it.
	predecessor, file, page uint64
}

// runs is a list of runs that stays encoded. Decoded, a hostile list would take 50 times the
// memory. Every 64th run is remembered, so that a search decodes few.
type runs struct {
	gaps    bool
	encoded []byte
	samples []runSample
	pages   uint64 // after the last run
	stored  uint64 // pages of kind runStored
	zero    uint64 // pages of kind runZero
	// described is how many pages all runs have.
	described uint64
	// predecessors is one more than the highest number of a predecessor.
	predecessors uint64
}

const sampleEvery = 64

type runSample struct {
	offset        int
	start, stored uint64
}

// decodeRuns checks all runs.
func decodeRuns(encoded []byte, gaps bool) (*runs, error) {
	r := &runs{gaps: gaps, encoded: encoded}
	c := &cursor{data: encoded}
	for n := 0; !c.atEnd(); n++ {
		if n%sampleEvery == 0 {
			r.samples = append(r.samples, runSample{offset: c.offset, start: r.pages, stored: r.stored})
		}
		run := r.next(c, r.pages, r.stored)
		r.pages = run.start + run.pages
		r.described += run.pages
		switch run.kind {
		case runZero:
			r.zero += run.pages
		case runStored:
			r.stored += run.pages
		case runPredecessor:
			r.predecessors = max(r.predecessors, run.predecessor+1)
		}
	}
	return r, c.err
}

// next decodes the run at the cursor, before which there are so many pages and stored pages.
func (r *runs) next(c *cursor, start, stored uint64) run {
	out := run{start: start, stored: stored}
	if r.gaps {
		gap := c.uvarint()
		if gap > math.MaxInt64-start {
			c.fail("a run starts too far away")
		}
		out.start += gap
	}
	n := c.uvarint()
	out.kind, out.pages = byte(n&(1<<runKindBits-1)), n>>runKindBits
	switch {
	case c.err != nil:
	case out.pages == 0 || out.pages > math.MaxInt64-out.start:
		c.fail("a run has %d pages", out.pages)
	case out.kind == runPredecessor:
		out.predecessor, out.file, out.page = c.uvarint(), c.uvarint(), c.uvarint()
		if out.predecessor > math.MaxInt32 {
			c.fail("there is no predecessor %d", out.predecessor)
		}
	case out.kind > runPredecessor:
		c.err = unsupported("it has pages of kind %d, which this version does not know", out.kind)
	}
	return out
}

// find returns the run that holds a page, and whether there is one.
func (r *runs) find(page uint64) (run, bool) {
	after := sort.Search(len(r.samples), func(i int) bool { return r.samples[i].start > page })
	if after == 0 || page >= r.pages {
		return run{}, false
	}
	sample := r.samples[after-1]
	c := &cursor{data: r.encoded, offset: sample.offset}
	for start, stored := sample.start, sample.stored; !c.atEnd(); {
		run := r.next(c, start, stored)
		if page < run.start {
			break
		}
		if page < run.start+run.pages {
			return run, true
		}
		start = run.start + run.pages
		if run.kind == runStored {
			stored += run.pages
		}
	}
	return run{}, false
}

// each calls f for all runs in order.
func (r *runs) each(f func(run) error) error {
	c := &cursor{data: r.encoded}
	var start, stored uint64
	for !c.atEnd() {
		run := r.next(c, start, stored)
		if c.err != nil {
			break
		}
		if err := f(run); err != nil {
			return err
		}
		start = run.start + run.pages
		if run.kind == runStored {
			stored += run.pages
		}
	}
	return c.err
}
