package archive

import (
	"fmt"
	"io/fs"
)

// Limits bound what a reader does for an archive. A value of 0 means the default.
type Limits struct {
	// Total is how many bytes all files may have together. Pages of zeros take no room in an
	// archive, so that a small one may claim any size. Default 16 TiB.
	Total int64
	// Index is how many bytes the index may have before compression. A reader takes about
	// three times as much memory. Default and maximum [MaxIndexSize].
	Index int64
	// Files is how many files there may be, and how many address spaces. Default 65536.
	Files int
}

func (l Limits) withDefaults() Limits {
	if l.Total == 0 {
		l.Total = 16 << 40
	}
	if l.Index == 0 || l.Index > MaxIndexSize {
		l.Index = MaxIndexSize
	}
	if l.Files == 0 {
		l.Files = 64 << 10
	}
	return l
}

// contents is a decoded index.
type contents struct {
	layout       layout
	limits       Limits
	files        []*file
	byName       map[string]*file
	frames       []frameInfo
	tags         []byte
	memory       map[AddressSpace]*memory
	predecessors []string // digests
}

// A file is one file of an archive.
type file struct {
	info   FileInfo
	kind   byte
	runs   *runs       // of a pages file
	first  int         // number of the first frame
	last   int         // number after the last frame
	frames []frameInfo // the frames; set when all are known
}

// FileInfo describes a file of an archive.
type FileInfo struct {
	Name   string      `json:"name"`
	Size   int64       `json:"size"`   // bytes
	Stored int64       `json:"stored"` // bytes that it takes in the archive
	Mode   fs.FileMode `json:"mode"`   // permissions
	// Pages is nil if the file has no pages of memory.
	Pages *PageCount `json:"pages,omitempty"`
}

// decodeIndex decodes and checks an index. Whatever it accepts can be read without further
// checks of numbers.
func decodeIndex(index []byte, layout layout, end *trailer, limits Limits) (*contents, error) {
	c := &contents{layout: layout, limits: limits, byName: map[string]*file{}, memory: map[AddressSpace]*memory{}}
	sections, err := splitSections(index)
	if err != nil {
		return nil, err
	}
	for _, step := range []struct {
		number uint64
		decode func(*cursor)
	}{
		{sectionFiles, c.decodeFiles},
		{sectionFrames, func(s *cursor) { c.decodeFrames(s, end) }},
		{sectionMemory, c.decodeMemory},
		{sectionPredecessors, c.decodePredecessors},
	} {
		s := &cursor{data: sections[step.number]}
		step.decode(s)
		if s.err == nil && s.offset < len(s.data) {
			s.fail("section %d has %d bytes too many", step.number, len(s.data)-s.offset)
		}
		if s.err != nil {
			return nil, s.err
		}
	}
	return c, c.checkPredecessors()
}

// splitSections returns the sections by number. Those that are missing are empty.
func splitSections(index []byte) (map[uint64][]byte, error) {
	known := map[uint64]bool{sectionFiles: true, sectionFrames: true, sectionMemory: true, sectionPredecessors: true}
	sections, last := map[uint64][]byte{}, uint64(0)
	for c := (&cursor{data: index}); c.offset < len(index); {
		number := c.uvarint()
		data := c.bytes(c.count(1))
		switch {
		case c.err != nil:
			return nil, c.err
		case number <= last:
			return nil, formatError("its index has section %d after section %d", number, last)
		case number%2 == 1 && !known[number]:
			return nil, unsupported("its index has a section %d, which this version does not know", number)
		}
		sections[number], last = data, number
	}
	for _, number := range []uint64{sectionFiles, sectionFrames, sectionMemory} {
		if sections[number] == nil {
			return nil, formatError("its index has no section %d", number)
		}
	}
	if sections[sectionPredecessors] == nil {
		sections[sectionPredecessors] = []byte{0}
	}
	return sections, nil
}

func (c *contents) decodeFiles(s *cursor) {
	n := s.count(5)
	if n > c.limits.Files && s.err == nil {
		s.err = overLimit("it has %d files, and at most %d are read", n, c.limits.Files)
		return
	}
	names, total := newNameSet(), int64(0)
	for range n {
		f := c.decodeFile(s)
		if s.err != nil {
			return
		}
		if err := names.add(f.info.Name); err != nil {
			s.fail("%v", err)
			return
		}
		if f.info.Size > c.limits.Total-total {
			s.err = overLimit("its files have more than %d bytes", c.limits.Total)
			return
		}
		total += f.info.Size
		c.files = append(c.files, f)
		c.byName[f.info.Name] = f
	}
}

func (c *contents) decodeFile(s *cursor) *file {
	f := &file{}
	f.info.Name = string(s.bytes(s.count(1)))
	f.kind = s.byte()
	mode := s.uvarint()
	f.info.Size = s.size()
	frames := s.size()
	f.info.Mode = fs.FileMode(mode & 0o777)
	switch {
	case s.err != nil:
	case mode > 0o777:
		s.fail("%q is no regular file: its mode is %#o", f.info.Name, mode)
	case frames > int64(MaxIndexSize):
		s.fail("%q has %d frames", f.info.Name, frames)
	case f.kind == filePages:
		c.decodePages(s, f)
	case f.kind != fileData:
		s.err = unsupported("%q is of kind %d, which this version does not know", f.info.Name, f.kind)
	}
	if n := len(c.files); n > 0 {
		f.first = c.files[n-1].last
	}
	f.last = f.first + int(frames)
	return f
}

func (c *contents) decodePages(s *cursor, f *file) {
	encoded := s.bytes(s.count(1))
	if s.err != nil {
		return
	}
	f.runs, s.err = decodeRuns(encoded, false)
	if s.err != nil {
		return
	}
	if size := uint64(c.layout.pageSize); uint64(f.info.Size)%size != 0 || f.runs.pages != uint64(f.info.Size)/size {
		s.fail("%q has %d bytes, but its index %d pages", f.info.Name, f.info.Size, f.runs.pages)
		return
	}
	f.info.Pages = &PageCount{Total: int64(f.runs.pages), Stored: int64(f.runs.stored), Zero: int64(f.runs.zero)}
}

func (c *contents) file(name string) (*file, error) {
	if f := c.byName[name]; f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("the archive has no file %q: %w", name, fs.ErrNotExist)
}
