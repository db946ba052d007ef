package archive

import (
	"encoding/binary"
	"fmt"
)

// Sizes and constants of the format, in bytes. All integers of fixed size are little-endian.
const (
	// formatVersion changes when old readers would misread an archive.
	formatVersion = 1

	magic        = "\x89HFCA\r\n\x1a" // shows when a transfer changed line ends or lost the eighth bit
	prologueSize = 16                 // magic, version, 2 bytes of 0, length of the header
	endMagic     = "HFCAEND\n"
	trailerSize  = 88
	digestSize   = 32
	saltSize     = 32
	tagSize      = 16

	maxHeaderSize    = 64 << 10
	maxFrameSize     = 4 << 20
	defaultFrameSize = 128 << 10 // one block of zstd
	defaultPageSize  = 4 << 10
)

// Kinds of what is sealed.
const (
	sealedFrame = 0
	sealedIndex = 1
)

// Codecs of a frame.
const (
	codecNone = 0
	codecZstd = 1
)

// A label says what a sealed piece of an archive is. It is authenticated with it, so that a
// piece cannot take the place of another.
type label struct {
	kind, codec byte
	plain       uint32 // length before compression
	number      uint64 // of the frame; for the index, how many frames there are
}

func (l label) encode() (b [16]byte) {
	b[0], b[1] = l.kind, l.codec
	binary.LittleEndian.PutUint32(b[4:], l.plain)
	binary.LittleEndian.PutUint64(b[8:], l.number)
	return b
}

// nonce returns the nonce of AES-GCM. It is unique in an archive, and the key is, too.
func (l label) nonce() (b [12]byte) {
	binary.LittleEndian.PutUint64(b[:], l.number)
	b[8] = l.kind
	return b
}

func (l label) String() string {
	if l.kind == sealedIndex {
		return "the index"
	}
	return fmt.Sprintf("frame %d", l.number)
}

func encodePrologue(header int) []byte {
	b := append(make([]byte, 0, prologueSize), magic...)
	b = binary.LittleEndian.AppendUint16(b, formatVersion)
	b = append(b, 0, 0)
	return binary.LittleEndian.AppendUint32(b, uint32(header))
}

// decodePrologue returns the length of the header.
func decodePrologue(b []byte) (int, error) {
	if string(b[:len(magic)]) != magic {
		return 0, formatError("it does not start as one")
	}
	if version := binary.LittleEndian.Uint16(b[8:]); version != formatVersion {
		return 0, unsupported("it has version %d of the format, and this program knows version %d", version, formatVersion)
	}
	if b[10] != 0 || b[11] != 0 {
		return 0, formatError("the reserved bytes of the start are not 0")
	}
	length := binary.LittleEndian.Uint32(b[12:])
	if length > maxHeaderSize {
		return 0, overLimit("the header has %d bytes, and at most %d are read", length, maxHeaderSize)
	}
	return int(length), nil
}

// A trailer is the end of an archive, from which the index is found.
type trailer struct {
	frames      uint64 // how many there are
	framesSize  uint64 // stored bytes of all frames, which are between the header and the index
	indexStored uint64 // bytes
	indexPlain  uint64 // bytes before compression
	indexTag    [tagSize]byte
	digest      [digestSize]byte // of the header's digest and the fields above
}

const trailerFields = trailerSize - digestSize - len(endMagic)

// fields encodes what the digest covers.
func (t *trailer) fields() []byte {
	b := make([]byte, 0, trailerSize)
	for _, n := range []uint64{t.frames, t.framesSize, t.indexStored, t.indexPlain} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return append(b, t.indexTag[:]...)
}

func (t *trailer) encode() []byte {
	return append(append(t.fields(), t.digest[:]...), endMagic...)
}

func decodeTrailer(b []byte) (*trailer, error) {
	if string(b[trailerSize-len(endMagic):]) != endMagic {
		return nil, damaged("it does not end as an archive ends: a part at the end is missing, or something was appended")
	}
	t := &trailer{
		frames:      binary.LittleEndian.Uint64(b),
		framesSize:  binary.LittleEndian.Uint64(b[8:]),
		indexStored: binary.LittleEndian.Uint64(b[16:]),
		indexPlain:  binary.LittleEndian.Uint64(b[24:]),
	}
	copy(t.indexTag[:], b[32:])
	copy(t.digest[:], b[trailerFields:])
	return t, nil
}
