package archive

import (
	"encoding/binary"
	"fmt"
	"math"
)

// A cursor decodes a part of the index. After the first error it returns zeros.
type cursor struct {
	data   []byte
	offset int
	err    error
}

func (c *cursor) fail(format string, args ...any) {
	if c.err == nil {
		c.err = formatError("its index at byte %d: %s", c.offset, fmt.Sprintf(format, args...))
	}
}

func (c *cursor) atEnd() bool { return c.err != nil || c.offset == len(c.data) }

func (c *cursor) uvarint() uint64 {
	if c.err != nil {
		return 0
	}
	n, size := binary.Uvarint(c.data[c.offset:])
	if size <= 0 {
		c.fail("a number is cut off or too large")
		return 0
	}
	c.offset += size
	return n
}

// size decodes a length or a count of bytes as int64.
func (c *cursor) size() int64 {
	n := c.uvarint()
	if n > math.MaxInt64 {
		c.fail("%d is too large", n)
		return 0
	}
	return int64(n)
}

// count decodes a count of items that take at least size bytes each, so that it cannot
// exceed what follows.
func (c *cursor) count(size int) int {
	n := c.uvarint()
	if n > uint64(len(c.data)-c.offset)/uint64(size) {
		c.fail("%d items do not fit", n)
		return 0
	}
	return int(n)
}

func (c *cursor) byte() byte {
	b := c.bytes(1)
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

func (c *cursor) bytes(n int) []byte {
	if c.err != nil || n > len(c.data)-c.offset {
		c.fail("%d bytes do not fit", n)
		return nil
	}
	b := c.data[c.offset : c.offset+n : c.offset+n]
	c.offset += n
	return b
}
