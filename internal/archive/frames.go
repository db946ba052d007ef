package archive

import "sort"

// A frameInfo is what the index says of a frame.
type frameInfo struct {
	offset        int64 // from the start of the first frame
	start         int64 // of its contents among the stored contents of the file
	stored, plain uint32
	codec         byte
}

func (c *contents) decodeFrames(s *cursor, end *trailer) {
	n := 0
	if len(c.files) > 0 {
		n = c.files[len(c.files)-1].last
	}
	if uint64(n) != end.frames || n > len(s.data)/(3+tagSize) {
		s.fail("the files have %d frames, and the archive %d", n, end.frames)
		return
	}
	c.frames = make([]frameInfo, n)
	offset := int64(0)
	for _, f := range c.files {
		offset = c.decodeFramesOf(s, f, offset)
	}
	if s.err == nil && uint64(offset) != end.framesSize {
		s.fail("the frames have %d bytes, and the archive %d", offset, end.framesSize)
	}
	c.tags = s.bytes(n * tagSize)
}

// decodeFramesOf decodes the frames of a file, the first of which is at an offset. It returns
// the offset after them.
func (c *contents) decodeFramesOf(s *cursor, f *file, offset int64) int64 {
	first, start := offset, int64(0)
	f.frames = c.frames[f.first:f.last]
	for i := range f.frames {
		if s.err != nil {
			return offset
		}
		info := c.decodeFrame(s, f)
		info.offset, info.start = offset, start
		f.frames[i] = info
		offset += int64(info.stored)
		start += int64(info.plain)
	}
	if want := c.storedSize(f); start != want {
		s.fail("the frames of %q have %d bytes instead of %d", f.info.Name, start, want)
	}
	f.info.Stored = offset - first
	return offset
}

// storedSize returns how many bytes of a file are in its frames.
func (c *contents) storedSize(f *file) int64 {
	if f.kind == filePages {
		return int64(f.runs.stored) * int64(c.layout.pageSize)
	}
	return f.info.Size
}

func (c *contents) decodeFrame(s *cursor, f *file) frameInfo {
	codec, stored, plain := s.byte(), s.uvarint(), s.uvarint()
	if s.err == nil && codec > codecZstd {
		s.err = unsupported("it has frames of codec %d, which this version does not know", codec)
	}
	if !c.permits(plain, f) || stored == 0 || stored > plain || codec == codecNone && stored != plain {
		s.fail("a frame of %q has %d bytes and is stored in %d", f.info.Name, plain, stored)
	}
	return frameInfo{codec: codec, stored: uint32(stored), plain: uint32(plain)}
}

// permits reports whether a frame of a file may have so many bytes.
func (c *contents) permits(plain uint64, f *file) bool {
	return plain > 0 && plain <= uint64(c.layout.frameSize) && (f.kind != filePages || plain%uint64(c.layout.pageSize) == 0)
}

// frameAt returns the number of the frame with the byte at an offset of what is stored of a
// file, and the byte's offset in it.
func (f *file) frameAt(offset int64) (number int, within int) {
	i := sort.Search(len(f.frames), func(i int) bool { return f.frames[i].start > offset }) - 1
	return f.first + i, int(offset - f.frames[i].start)
}

func (c *contents) label(number int) label {
	f := c.frames[number]
	return label{kind: sealedFrame, codec: f.codec, plain: f.plain, number: uint64(number)}
}

func (c *contents) tag(number int) []byte {
	return c.tags[number*tagSize : (number+1)*tagSize : (number+1)*tagSize]
}
