package archive

// A memory is an address space.
type memory struct {
	runs *runs
	file *file // nil if it has no pages
}

func (c *contents) decodeMemory(s *cursor) {
	n := s.count(4)
	if n > c.limits.Files && s.err == nil {
		s.err = overLimit("it has %d address spaces, and at most %d are read", n, c.limits.Files)
	}
	for range n {
		space, m := c.decodeSpace(s)
		if s.err == nil && (c.memory[space] != nil || !m.valid()) {
			s.fail("the memory of %v is there twice, or does not match its pages file", space)
		}
		if s.err != nil {
			return
		}
		c.memory[space] = m
	}
}

func (c *contents) decodeSpace(s *cursor) (AddressSpace, *memory) {
	kind := s.byte()
	if s.err == nil && kind > 1 {
		s.err = unsupported("it has an address space of kind %d, which this version does not know", kind)
	}
	space := AddressSpace{Shared: kind == 1, ID: s.uvarint()}
	number := s.uvarint()
	if number > uint64(len(c.files)) {
		s.fail("there is no file %d", number)
	}
	encoded := s.bytes(s.count(1))
	if s.err != nil {
		return space, nil
	}
	m := &memory{}
	if number > 0 {
		m.file = c.files[number-1]
	}
	m.runs, s.err = decodeRuns(encoded, true)
	return space, m
}

// valid reports whether the pages of the address space are those of its file.
func (m *memory) valid() bool {
	if m.runs.stored != m.runs.described {
		return false // they are only stored in a pages file
	}
	if m.file == nil {
		return m.runs.stored == 0
	}
	return m.file.kind == filePages && m.runs.stored == m.file.runs.pages
}

const maxPredecessors = 1024

func (c *contents) decodePredecessors(s *cursor) {
	n := s.count(2 * digestSize)
	if n > maxPredecessors {
		s.err = overLimit("it has %d predecessors, and at most %d are read", n, maxPredecessors)
	}
	for range n {
		if s.err != nil {
			return
		}
		digest := s.bytes(digestSize)
		s.bytes(digestSize) // of its trailer, for a reader that follows the reference
		c.predecessors = append(c.predecessors, formatDigest(digest))
	}
}

func (c *contents) checkPredecessors() error {
	for _, f := range c.files {
		if f.kind == filePages && f.runs.predecessors > uint64(len(c.predecessors)) {
			return formatError("%q refers to predecessor %d of %d", f.info.Name, f.runs.predecessors, len(c.predecessors))
		}
	}
	return nil
}
