package archive

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
)

// OpenOptions say how an archive is read.
type OpenOptions struct {
	// Secrets open an archive that is encrypted.
	Secrets Secrets
	// Identity is of which container the archive must be. Empty fields are not compared.
	Identity Identity
	Limits   Limits
}

// Description is what the header of an archive says.
type Description struct {
	Header
	Encrypted bool `json:"encrypted"`
	// KeyIDs says with what it is encrypted: "key " and its ID, or "age " and the recipients.
	KeyIDs   []string `json:"keyIDs,omitempty"`
	PageSize int      `json:"pageSize"` // bytes
}

func (h *encodedHeader) describe() Description {
	d := Description{
		Header:    Header{Identity: h.Identity, Created: h.Created, Metadata: h.Metadata},
		Encrypted: h.encrypted(), PageSize: h.PageSize,
	}
	for _, k := range h.Keys {
		d.KeyIDs = append(d.KeyIDs, k.Type+" "+k.ID)
	}
	return d
}

// ReadHeader reads the header only. It needs no key. What it returns for an encrypted archive
// is not authenticated.
func ReadHeader(r io.ReaderAt, size int64) (*Description, error) {
	head, _, err := readHeader(r, size)
	if err != nil {
		return nil, err
	}
	d := head.describe()
	return &d, nil
}

// readHeader returns the header, and all bytes from the start of the archive up to the first
// frame.
func readHeader(r io.ReaderAt, size int64) (*encodedHeader, []byte, error) {
	start := make([]byte, prologueSize)
	if size < prologueSize {
		return nil, nil, formatError("it has %d bytes", size)
	}
	if err := readAt(r, start, 0); err != nil {
		return nil, nil, err
	}
	length, err := decodePrologue(start)
	if err != nil {
		return nil, nil, err
	}
	if size < int64(prologueSize+length+digestSize+trailerSize) {
		return nil, nil, damaged("it has %d bytes, and ends within its header or trailer", size)
	}
	start = make([]byte, prologueSize+length+digestSize)
	if err := readAt(r, start, 0); err != nil {
		return nil, nil, err
	}
	head, err := decodeHeader(start[prologueSize : prologueSize+length])
	return head, start, err
}

func readAt(r io.ReaderAt, b []byte, offset int64) error {
	if n, err := r.ReadAt(b, offset); n < len(b) {
		return fmt.Errorf("reading %d bytes of the archive at %d: %w", len(b), offset, noEOF(err))
	}
	return nil
}

// A Reader reads an archive. Its methods may be called concurrently.
type Reader struct {
	r        io.ReaderAt
	size     int64
	head     *encodedHeader
	sealer   sealer
	frames   int64 // offset of the first frame
	end      *trailer
	contents *contents
	decoder  *zstd.Decoder
	// page is the frame that ReadPage has read last: the next page is often in it, too.
	page atomic.Pointer[openFrame]
}

// An openFrame is the contents of a frame.
type openFrame struct {
	number int
	plain  []byte
}

// Open reads the header, the trailer and the index of an archive, and checks them. If it
// succeeds, the archive is of the expected container, and nobody without the key has changed
// what these three parts say.
func Open(r io.ReaderAt, size int64, options OpenOptions) (*Reader, error) {
	head, start, err := readHeader(r, size)
	if err != nil {
		return nil, err
	}
	a := &Reader{r: r, size: size, head: head, frames: int64(len(start))}
	if a.sealer, err = head.sealer(options.Secrets); err != nil {
		return nil, err
	}
	text, stored := start[:len(start)-digestSize], start[len(start)-digestSize:]
	digest := a.sealer.headerDigest(text)
	if !bytes.Equal(digest[:], stored) {
		return nil, damaged("the digest of its header differs")
	}
	if err := head.Identity.check(options.Identity); err != nil {
		return nil, err
	}
	if err := a.readTrailer(digest); err != nil {
		return nil, err
	}
	if a.decoder, err = newDecompressor(); err != nil {
		return nil, err
	}
	return a, a.readIndex(options.Limits.withDefaults())
}

func (a *Reader) readTrailer(header [digestSize]byte) error {
	b := make([]byte, trailerSize)
	if err := readAt(a.r, b, a.size-trailerSize); err != nil {
		return err
	}
	end, err := decodeTrailer(b)
	if err != nil {
		return err
	}
	digest := a.sealer.trailerDigest(header, end.fields())
	if !bytes.Equal(digest[:], end.digest[:]) {
		return damaged("the digest of its trailer differs")
	}
	room := uint64(a.size - a.frames - trailerSize)
	if end.framesSize > room || end.indexStored != room-end.framesSize {
		return damaged("it has %d bytes, and its trailer says %d of frames and %d of the index", a.size, end.framesSize, end.indexStored)
	}
	a.end = end
	return nil
}

func (a *Reader) readIndex(limits Limits) error {
	if a.end.indexPlain > uint64(limits.Index) || a.end.indexStored > uint64(limits.Index) {
		return overLimit("its index has %d bytes, and at most %d are read", max(a.end.indexPlain, a.end.indexStored), limits.Index)
	}
	stored := make([]byte, a.end.indexStored, a.end.indexStored+tagSize)
	if err := readAt(a.r, stored, a.frames+int64(a.end.framesSize)); err != nil {
		return err
	}
	l := label{kind: sealedIndex, codec: codecZstd, plain: uint32(a.end.indexPlain), number: a.end.frames}
	opened, err := a.sealer.open(l, stored, a.end.indexTag[:])
	if err != nil {
		return err
	}
	index, err := decompress(a.decoder, l, opened, make([]byte, 0, a.end.indexPlain))
	if err != nil {
		return err
	}
	a.contents, err = decodeIndex(index, layout{pageSize: a.head.PageSize, frameSize: a.head.FrameSize}, a.end, limits)
	return err
}

// Description returns what the header says.
func (a *Reader) Description() Description { return a.head.describe() }

// Predecessors returns the digests of earlier archives that this one refers to.
func (a *Reader) Predecessors() []string { return slices.Clone(a.contents.predecessors) }

// Files returns all files in the order in which they are stored.
func (a *Reader) Files() []FileInfo {
	infos := make([]FileInfo, len(a.contents.files))
	for i, f := range a.contents.files {
		infos[i] = f.info
	}
	return infos
}

// AddressSpaces returns what [Reader.ReadPage] knows the memory of, in no order.
func (a *Reader) AddressSpaces() []AddressSpace {
	var spaces []AddressSpace
	for space := range a.contents.memory {
		spaces = append(spaces, space)
	}
	return spaces
}

// ReadFile returns a file of at most limit bytes.
func (a *Reader) ReadFile(ctx context.Context, name string, limit int64) ([]byte, error) {
	f, err := a.contents.file(name)
	if err != nil {
		return nil, err
	}
	if f.info.Size > limit {
		return nil, overLimit("%q has %d bytes, and at most %d are read", name, f.info.Size, limit)
	}
	var out bytes.Buffer
	err = a.CopyFile(ctx, &out, name)
	return out.Bytes(), err
}

// CopyFile writes a file to w, which gets nothing whose checksum was not compared.
func (a *Reader) CopyFile(ctx context.Context, w io.Writer, name string) error {
	f, err := a.contents.file(name)
	if err != nil {
		return err
	}
	s, err := a.stream(ctx, f.first, f.last)
	if err != nil {
		return err
	}
	defer s.close()
	return s.copyFile(f, filledWriter{w})
}

// ReadPage reads the page at an address of an address space into page, whose length is the
// page size. It reads one frame of the archive, or nothing if the page is zero or in the frame
// that was read before. The error is [ErrNoPage] if the checkpoint has no such page.
func (a *Reader) ReadPage(space AddressSpace, address uint64, page []byte) error {
	size := uint64(a.head.PageSize)
	if uint64(len(page)) != size || address%size != 0 {
		return fmt.Errorf("address %#x or length %d is not that of a page of %d bytes", address, len(page), size)
	}
	m := a.contents.memory[space]
	if m == nil {
		return fmt.Errorf("%w: the archive does not describe the memory of %v", ErrNoPage, space)
	}
	run, ok := m.runs.find(address / size)
	if !ok {
		return fmt.Errorf("%w: %v has none at address %#x", ErrNoPage, space, address)
	}
	return a.readPage(m.file, run.stored+address/size-run.start, page)
}

// readPage reads a page of a pages file.
func (a *Reader) readPage(f *file, number uint64, page []byte) error {
	run, ok := f.runs.find(number)
	switch {
	case !ok:
		return fmt.Errorf("%w: %q has no page %d", ErrNoPage, f.info.Name, number)
	case run.kind == runZero:
		clear(page)
		return nil
	case run.kind == runPredecessor:
		return &PredecessorError{Digest: a.contents.predecessors[run.predecessor]}
	}
	frame, within := f.frameAt(int64(run.stored+number-run.start) * int64(len(page)))
	plain, err := a.load(frame)
	if err != nil {
		return err
	}
	copy(page, plain[within:within+len(page)])
	return nil
}

// load returns the contents of a frame.
func (a *Reader) load(number int) ([]byte, error) {
	if last := a.page.Load(); last != nil && last.number == number {
		return last.plain, nil
	}
	info := a.contents.frames[number]
	stored := make([]byte, info.stored, info.stored+tagSize)
	if err := readAt(a.r, stored, a.frames+info.offset); err != nil {
		return nil, err
	}
	plain, err := a.open(number, stored, make([]byte, 0, info.plain))
	if err != nil {
		return nil, err
	}
	a.page.Store(&openFrame{number: number, plain: plain})
	return plain, nil
}

// open checks, decrypts and decompresses a frame. It overwrites stored and buffer, which has
// room for a frame.
func (a *Reader) open(number int, stored, buffer []byte) ([]byte, error) {
	l := a.contents.label(number)
	opened, err := a.sealer.open(l, stored, a.contents.tag(number))
	if err != nil {
		return nil, err
	}
	return decompress(a.decoder, l, opened, buffer)
}
