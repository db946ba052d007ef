package archive

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// newCompressor returns a compressor for one goroutine, about as fast as zstd -1. It does not
// compress literals: that makes archives of memory 1 to 4 % smaller and takes a sixth of the
// time. Tags make zstd's own checksums superfluous.
func newCompressor(frameSize int) (*zstd.Encoder, error) {
	// The window comes before the level, which otherwise halves the size of blocks: a frame
	// that is one block takes an eighth less time.
	e, err := zstd.NewWriter(nil, zstd.WithWindowSize(frameSize), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithNoEntropyCompression(true))
	if err != nil {
		return nil, fmt.Errorf("setting up zstd: %w", err)
	}
	return e, nil
}

// newDecompressor returns a decompressor that writes no more than it gets room for.
func newDecompressor() (*zstd.Decoder, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(workers), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("setting up zstd: %w", err)
	}
	return d, nil
}

// decompress decompresses exactly plain bytes into buffer.
func decompress(d *zstd.Decoder, l label, stored, buffer []byte) ([]byte, error) {
	if l.codec == codecNone {
		if len(stored) != int(l.plain) {
			return nil, formatError("%v has %d bytes instead of %d", l, len(stored), l.plain)
		}
		return append(buffer[:0], stored...), nil
	}
	plain, err := d.DecodeAll(stored, buffer[:0:l.plain])
	if err != nil {
		return nil, formatError("%v cannot be decompressed to %d bytes: %v", l, l.plain, err)
	}
	if len(plain) != int(l.plain) {
		return nil, formatError("%v has %d bytes instead of %d", l, len(plain), l.plain)
	}
	return plain, nil
}
