package archive

import (
	"encoding/binary"
	"fmt"
	"io/fs"
)

// Sections of the index. A reader rejects an odd one that it does not know, and skips an
// even one.
const (
	sectionFiles        = 1
	sectionFrames       = 3
	sectionMemory       = 5
	sectionPredecessors = 7
)

// Kinds of files.
const (
	fileData  = 0
	filePages = 1
)

// MaxIndexSize is how many bytes an index may have before compression. That is enough for
// 1.5 TiB of stored pages.
const MaxIndexSize = 256 << 20

// An indexFile is what the index says of a file.
type indexFile struct {
	name   string
	kind   byte
	mode   fs.FileMode
	size   int64
	frames uint64 // how many, after those of the file before
	runs   []byte // of a pages file: which pages are zeros, and which are stored
}

// An indexBuilder collects what the index of a new archive says.
type indexBuilder struct {
	pageSize int
	names    *nameSet
	files    []*indexFile
	memory   []*memoryMap
	pages    PageCount
}

func (c *PageCount) add(p *pageWriter) {
	stored := int64(p.runs.stored)
	c.Stored += stored
	c.Total += p.total
	c.Zero += p.total - stored
}

func (b *indexBuilder) encode(frames *frameTable) ([]byte, error) {
	memory, err := b.encodeMemory()
	if err != nil {
		return nil, err
	}
	index := appendSection(nil, sectionFiles, b.encodeFiles())
	index = appendSection(index, sectionFrames, frames.sizes, frames.tags)
	index = appendSection(index, sectionMemory, memory)
	if len(index) > MaxIndexSize {
		return nil, overLimit("the index has %d bytes, and at most %d are permitted: the checkpoint is too large", len(index), MaxIndexSize)
	}
	return index, nil
}

func appendSection(index []byte, number uint64, parts ...[]byte) []byte {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	index = binary.AppendUvarint(index, number)
	index = binary.AppendUvarint(index, uint64(size))
	for _, p := range parts {
		index = append(index, p...)
	}
	return index
}

func appendBytes(b, data []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(data))), data...)
}

func (b *indexBuilder) encodeFiles() []byte {
	out := binary.AppendUvarint(nil, uint64(len(b.files)))
	for _, f := range b.files {
		out = appendBytes(out, []byte(f.name))
		out = append(out, f.kind)
		out = binary.AppendUvarint(out, uint64(f.mode))
		out = binary.AppendUvarint(out, uint64(f.size))
		out = binary.AppendUvarint(out, f.frames)
		if f.kind == filePages {
			out = appendBytes(out, f.runs)
		}
	}
	return out
}

func (b *indexBuilder) encodeMemory() ([]byte, error) {
	count, spaces := uint64(0), []byte(nil)
	for _, m := range b.memory {
		if m.unknown {
			continue
		}
		file, err := b.fileOf(m)
		if err != nil {
			return nil, err
		}
		count++
		spaces = appendMemory(spaces, m, file)
	}
	return append(binary.AppendUvarint(nil, count), spaces...), nil
}

func appendMemory(b []byte, m *memoryMap, file uint64) []byte {
	shared := byte(0)
	if m.space.Shared {
		shared = 1
	}
	b = append(b, shared)
	b = binary.AppendUvarint(b, m.space.ID)
	b = binary.AppendUvarint(b, file)
	return appendBytes(b, m.runs.bytes())
}

// fileOf returns the number of the pages file that a map refers to, from 1; 0 if it refers to
// no pages.
func (b *indexBuilder) fileOf(m *memoryMap) (uint64, error) {
	pages := m.runs.stored
	if pages == 0 {
		return 0, nil
	}
	name := pagesFile(m.pagesID)
	for i, f := range b.files {
		if f.name != name {
			continue
		}
		if f.kind != filePages || uint64(f.size) != pages*uint64(b.pageSize) {
			return 0, fmt.Errorf("the pagemap of %v describes %d pages of %d bytes, but %s has %d bytes: the dump is incomplete",
				m.space, pages, b.pageSize, name, f.size)
		}
		return uint64(i) + 1, nil
	}
	return 0, fmt.Errorf("the pagemap of %v describes %d pages, but there is no %s: the dump is incomplete", m.space, pages, name)
}
