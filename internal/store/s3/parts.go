package s3

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"io"
	"sync"
)

const (
	chunkSize = 5 << 20 // bytes; the least that S3 takes for all parts but the last
	maxChunks = 4       // in memory at a time, see chunksAtOnce
	maxParts  = 10_000  // of an upload: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
)

// chunksOfPart returns how many chunks the part with a number has; the first is 1.
func chunksOfPart(number int) int {
	switch {
	case number <= 500:
		return 1
	case number <= 1500:
		return 2
	default:
		return maxChunks
	}
}

// chunksAtOnce returns how many chunks are in memory while the part with a number is
// collected: those of a part, and one more for the next.
func chunksAtOnce(number int) int { return min(chunksOfPart(number)+1, maxChunks) }

// MaxObject is the size of the largest object in bytes: 178 GiB.
const MaxObject = (500*1 + 1000*2 + (maxParts-1500)*maxChunks) * chunkSize

// A part is a piece of an object that is sent by one request.
type part struct {
	chunks [][]byte // all are full but the last
	size   int64
}

// write appends to the last chunk and returns how much fit.
func (p *part) write(data []byte) int {
	last := len(p.chunks) - 1
	if last < 0 {
		return 0
	}
	chunk := p.chunks[last]
	n := copy(chunk[len(chunk):cap(chunk)], data)
	p.chunks[last] = chunk[:len(chunk)+n]
	p.size += int64(n)
	return n
}

// hasRoom is whether the last chunk is not full.
func (p *part) hasRoom() bool {
	last := len(p.chunks) - 1
	return last >= 0 && len(p.chunks[last]) < cap(p.chunks[last])
}

// checksums are those of a part. The server verifies them.
type checksums struct {
	crc32c string // base64 of the big-endian CRC32C
	sha256 string // hexadecimal; "" over HTTPS, where nobody changes a request on its way
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s *Store) checksumOf(chunks ...[]byte) checksums {
	crc, sha := uint32(0), sha256.New()
	for _, chunk := range chunks {
		crc = crc32.Update(crc, castagnoli, chunk)
		if s.plain {
			_, _ = sha.Write(chunk) // It returns no error.
		}
	}
	sums := checksums{crc32c: base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc))}
	if s.plain {
		sums.sha256 = hex.EncodeToString(sha.Sum(nil))
	}
	return sums
}

// A partReader reads a part for one request. A connection may read on for a moment after
// its request has ended. So the reader is detached before the chunks are used again.
type partReader struct {
	mu     sync.Mutex
	chunks [][]byte
}

func newPartReader(p *part) *partReader {
	return &partReader{chunks: append([][]byte(nil), p.chunks...)}
}

func (r *partReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.chunks) > 0 && len(r.chunks[0]) == 0 {
		r.chunks = r.chunks[1:]
	}
	if len(r.chunks) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.chunks[0])
	r.chunks[0] = r.chunks[0][n:]
	return n, nil
}

// detach lets the reader end.
func (r *partReader) detach() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.chunks = nil
}
