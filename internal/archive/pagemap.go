package archive

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"google.golang.org/protobuf/proto"
)

// Magic numbers and flags of CRIU's images: criu/include/magic.h, criu/include/pagemap.h.
const (
	criuImageMagic   = 0x54564319
	criuPagemapMagic = 0x56084025

	criuInParent = 1 << 0
	criuLazy     = 1 << 1
	criuPresent  = 1 << 2

	maxPagemapEntry = 4 << 10 // bytes; CRIU's have less than 40
)

// A memoryMap says where the pages of an address space are in a pages file.
type memoryMap struct {
	space   AddressSpace
	pagesID uint32
	runs    runEncoder
	// unknown is whether the pagemap says something that this version does not know, so that
	// the map may be wrong. It is left out of the index.
	unknown bool
}

// A pagemapParser reads checkpoint/pagemap-N.img: two magic numbers, and then messages that
// are preceded by their length. The first is a pagemap_head, the others are pagemap_entry.
type pagemapParser struct {
	r        *bufio.Reader
	pageSize uint64
	buffer   []byte
	entry    pagemap.PagemapEntry
	next     uint64 // page number after the last entry
	memory   *memoryMap
}

// parsePagemap reads a pagemap to its end. It rejects a pagemap with which the checkpoint
// could not be restored from the archive.
func parsePagemap(r io.Reader, space AddressSpace, pageSize int) (*memoryMap, error) {
	p := &pagemapParser{
		r: bufio.NewReader(r), pageSize: uint64(pageSize),
		memory: &memoryMap{space: space, runs: runEncoder{gaps: true}},
	}
	if err := p.head(); err != nil {
		return nil, err
	}
	for {
		switch err := p.message(&p.entry); {
		case errors.Is(err, io.EOF):
			return p.memory, nil
		case err != nil:
			return nil, err
		}
		if err := p.add(); err != nil {
			return nil, fmt.Errorf("the entry for address %#x: %w", p.entry.GetVaddr(), err)
		}
	}
}

func (p *pagemapParser) head() error {
	var magic [8]byte
	if _, err := io.ReadFull(p.r, magic[:]); err != nil {
		return fmt.Errorf("reading the magic number: %w", noEOF(err))
	}
	if a, b := binary.LittleEndian.Uint32(magic[:]), binary.LittleEndian.Uint32(magic[4:]); a != criuImageMagic || b != criuPagemapMagic {
		return fmt.Errorf("the magic numbers are %#x and %#x instead of %#x and %#x", a, b, criuImageMagic, criuPagemapMagic)
	}
	var head pagemap.PagemapHead
	if err := p.message(&head); err != nil {
		return fmt.Errorf("reading the head: %w", noEOF(err))
	}
	p.memory.pagesID = head.GetPagesId()
	p.memory.unknown = len(head.ProtoReflect().GetUnknown()) > 0
	return nil
}

// message reads the next message, or returns io.EOF.
func (p *pagemapParser) message(m proto.Message) error {
	var length [4]byte
	if _, err := io.ReadFull(p.r, length[:]); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(length[:])
	if n > maxPagemapEntry {
		return fmt.Errorf("an entry has %d bytes, which is more than %d", n, maxPagemapEntry)
	}
	if uint32(cap(p.buffer)) < n {
		p.buffer = make([]byte, n)
	}
	p.buffer = p.buffer[:n]
	if _, err := io.ReadFull(p.r, p.buffer); err != nil {
		return fmt.Errorf("reading an entry: %w", noEOF(err))
	}
	if err := proto.Unmarshal(p.buffer, m); err != nil {
		return fmt.Errorf("decoding an entry: %w", err)
	}
	return nil
}

// add puts the current entry into the map.
func (p *pagemapParser) add() error {
	pages := p.entry.GetNrPages()
	if p.entry.NrPages == nil {
		pages = uint64(p.entry.GetCompatNrPages())
	}
	start := p.entry.GetVaddr() / p.pageSize
	switch {
	case p.entry.GetVaddr()%p.pageSize != 0:
		return fmt.Errorf("it is not a multiple of %d", p.pageSize)
	case start < p.next:
		return errors.New("it lies before the end of the previous one")
	case pages > 1<<52:
		return fmt.Errorf("it has %d pages", pages)
	}
	flags := pagemapFlags(&p.entry)
	switch {
	case flags&^(criuInParent|criuLazy|criuPresent) != 0 || len(p.entry.ProtoReflect().GetUnknown()) > 0:
		p.memory.unknown = true
	case flags&criuInParent != 0:
		return errors.New("its pages are in a parent checkpoint, which an archive does not have: dump without a parent")
	case flags&criuPresent == 0:
		return errors.New("its pages were not dumped: the dump is lazy and was not completed")
	}
	p.memory.runs.skip(start - p.next)
	p.memory.runs.append(runStored, pages)
	p.next = start + pages
	return nil
}

// pagemapFlags returns the flags of an entry. Old versions of CRIU had in_parent only.
func pagemapFlags(e *pagemap.PagemapEntry) uint32 {
	switch {
	case e.GetInParent():
		return e.GetFlags() | criuInParent
	case e.Flags == nil:
		return criuPresent
	}
	return e.GetFlags()
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
