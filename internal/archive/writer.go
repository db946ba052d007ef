package archive

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
)

// WriteOptions say how an archive is written. The zero value writes one that is not
// encrypted.
type WriteOptions struct {
	// Key and Recipients are who can decrypt the archive: each of them alone. Without both
	// it is not encrypted.
	Key        *Key
	Recipients []Recipient
	// PageSize is the size of a page of memory in bytes: 4096, 16384 or 65536; 0 for 4096.
	PageSize int
	// Random is where the salt and the data key come from; nil for the system.
	Random io.Reader
}

// A File is one file of a checkpoint.
type File struct {
	// Name is relative, with slashes, as in checkpoint/inventory.img.
	Name string
	Size int64 // bytes
	// Mode is that of a regular file. The permissions are recorded.
	Mode fs.FileMode
	io.Reader
}

// A Result says what was written.
type Result struct {
	Digest string // SHA-256 of the archive: "sha256:" and 64 digits
	Files  int
	Raw    int64 // bytes of all files
	Stored int64 // bytes of the archive
	Pages  PageCount
}

// PageCount counts the pages of memory of all pages files.
type PageCount struct {
	Total  int64 `json:"total"`
	Zero   int64 `json:"zero"`
	Stored int64 `json:"stored"`
}

// A Writer writes an archive. A caller ends it with Close or Abort; Abort after Close does
// nothing. It is not for concurrent use, but compresses and encrypts in goroutines of its own.
type Writer struct {
	dst      io.Writer
	digest   hash.Hash
	buffer   []byte // not written yet
	written  int64  // with buffer
	err      error  // of Add; the archive cannot be completed
	header   [digestSize]byte
	sealer   sealer
	pipeline *pipeline
	index    indexBuilder
	layout   layout
	ended    bool // by Close or Abort
}

// A layout are the sizes that the header says.
type layout struct {
	pageSize, frameSize int
}

// writeSize is how much is written at once.
const writeSize = 256 << 10

var errEnded = errors.New("the archive was closed or aborted before")

// NewWriter starts to write an archive to dst.
func NewWriter(dst io.Writer, header Header, options WriteOptions) (*Writer, error) {
	head, dataKey, err := newHeader(header, options)
	if err != nil {
		return nil, err
	}
	w := &Writer{
		dst: dst, digest: sha256.New(), buffer: make([]byte, 0, writeSize), sealer: checksums{salt: head.Salt},
		layout: layout{pageSize: head.PageSize, frameSize: head.FrameSize},
		index:  indexBuilder{pageSize: head.PageSize, names: newNameSet()},
	}
	if dataKey != nil {
		if w.sealer, err = newEncrypter(dataKey, head.Salt); err != nil {
			return nil, err
		}
	}
	if err := w.writeHeader(head); err != nil {
		return nil, err
	}
	w.pipeline, err = newPipeline(head.FrameSize, w.sealer, w.write)
	return w, err
}

// newHeader returns the header, and the data key if the archive is to be encrypted.
func newHeader(header Header, options WriteOptions) (head *encodedHeader, dataKey []byte, err error) {
	random := options.Random
	if random == nil {
		random = rand.Reader
	}
	head = &encodedHeader{
		Created: header.Created.UTC(), Identity: header.Identity, Metadata: header.Metadata,
		Compression: "zstd", Protection: protectionChecksum,
		Salt: make([]byte, saltSize), PageSize: options.PageSize, FrameSize: defaultFrameSize,
	}
	if head.PageSize == 0 {
		head.PageSize = defaultPageSize
	}
	if _, err := io.ReadFull(random, head.Salt); err != nil {
		return nil, nil, fmt.Errorf("making a salt: %w", err)
	}
	if options.Key != nil || len(options.Recipients) > 0 {
		dataKey = make([]byte, KeySize)
		if _, err := io.ReadFull(random, dataKey); err != nil {
			return nil, nil, fmt.Errorf("making a data key: %w", err)
		}
		if err := head.wrap(dataKey, options); err != nil {
			return nil, nil, err
		}
	}
	return head, dataKey, head.validate()
}

func (h *encodedHeader) wrap(dataKey []byte, options WriteOptions) error {
	h.Protection = protectionEncryption
	if options.Key != nil {
		w, err := wrapWithKey(*options.Key, h.Salt, dataKey)
		if err != nil {
			return err
		}
		h.Keys = append(h.Keys, w)
	}
	if len(options.Recipients) > 0 {
		w, err := wrapWithAge(options.Recipients, dataKey)
		if err != nil {
			return err
		}
		h.Keys = append(h.Keys, w)
	}
	return nil
}

func (w *Writer) writeHeader(head *encodedHeader) error {
	text, err := json.Marshal(head)
	if err != nil {
		return fmt.Errorf("encoding the header: %w", err)
	}
	if len(text) > maxHeaderSize {
		return overLimit("the header has %d bytes, and at most %d are permitted", len(text), maxHeaderSize)
	}
	start := append(encodePrologue(len(text)), text...)
	w.header = w.sealer.headerDigest(start)
	return w.write(append(start, w.header[:]...))
}

// write computes the digest and writes to dst, in large pieces.
func (w *Writer) write(b []byte) error {
	w.written += int64(len(b))
	for len(b) > 0 {
		n := copy(w.buffer[len(w.buffer):cap(w.buffer)], b)
		w.buffer, b = w.buffer[:len(w.buffer)+n], b[n:]
		if len(w.buffer) == cap(w.buffer) {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *Writer) flush() error {
	w.digest.Write(w.buffer)
	if _, err := w.dst.Write(w.buffer); err != nil {
		return fmt.Errorf("writing the archive: %w", err)
	}
	w.buffer = w.buffer[:0]
	return nil
}

// Add adds a file and reads it to its end. It is an error if the file does not have its
// Size, or if it describes memory that the archive cannot restore. After an error the archive
// cannot be completed.
func (w *Writer) Add(ctx context.Context, file File) error {
	if w.ended {
		return errEnded
	}
	if w.err != nil {
		return w.err
	}
	if err := w.add(ctx, file); err != nil {
		w.err = fmt.Errorf("storing %q: %w", file.Name, err)
	}
	return w.err
}

func (w *Writer) add(ctx context.Context, file File) error {
	if !file.Mode.IsRegular() || file.Size < 0 {
		return fmt.Errorf("it is no regular file: mode %v, size %d", file.Mode, file.Size)
	}
	if err := w.index.names.add(file.Name); err != nil {
		return err
	}
	entry := &indexFile{name: file.Name, mode: file.Mode.Perm(), size: file.Size}
	source := &sizedReader{r: file.Reader, left: file.Size, size: file.Size}
	first := w.pipeline.next
	if err := w.addContent(ctx, entry, source); err != nil {
		return err
	}
	if err := source.end(); err != nil {
		return err
	}
	entry.frames = w.pipeline.next - first
	w.index.files = append(w.index.files, entry)
	return nil
}

func (w *Writer) addContent(ctx context.Context, entry *indexFile, source io.Reader) error {
	if isPages(entry.name) && entry.size%int64(w.layout.pageSize) == 0 {
		entry.kind = filePages
		p := pageWriter{pipeline: w.pipeline, layout: w.layout, source: source}
		err := p.run(ctx)
		entry.runs = p.runs.bytes()
		w.index.pages.add(&p)
		return err
	}
	framer := &framer{ctx: ctx, pipeline: w.pipeline}
	if space, ok := addressSpaceOf(entry.name); ok {
		source = io.TeeReader(source, framer)
		memory, err := parsePagemap(source, space, w.layout.pageSize)
		if err != nil {
			return err
		}
		w.index.memory = append(w.index.memory, memory)
	} else if _, err := framer.ReadFrom(source); err != nil {
		return err
	}
	framer.flush()
	return nil
}

// Close writes the index and returns what was written. After an error of Add it only returns
// this error.
func (w *Writer) Close() (*Result, error) {
	if err := errors.Join(w.err, w.end()); err != nil {
		return nil, err
	}
	if err := w.writeIndex(); err != nil {
		return nil, err
	}
	result := &Result{
		Digest: formatDigest(w.digest.Sum(nil)), Files: len(w.index.files), Stored: w.written, Pages: w.index.pages,
	}
	for _, f := range w.index.files {
		result.Raw += f.size
	}
	return result, nil
}

// Abort ends the goroutines of an archive that is not to be completed.
func (w *Writer) Abort() {
	_ = w.end() // the archive is given up
}

// end waits for the frames and ends the goroutines.
func (w *Writer) end() error {
	if w.ended {
		return errEnded
	}
	w.ended = true
	return w.pipeline.close()
}

func (w *Writer) writeIndex() error {
	plain, err := w.index.encode(&w.pipeline.table)
	if err != nil {
		return err
	}
	compressor, err := newCompressor(w.layout.frameSize) // Its memory is twice the window, not the size of the index.
	if err != nil {
		return err
	}
	end := trailer{frames: w.pipeline.next, framesSize: w.pipeline.table.stored, indexPlain: uint64(len(plain))}
	stored := compressor.EncodeAll(plain, nil)
	l := label{kind: sealedIndex, codec: codecZstd, plain: uint32(len(plain)), number: end.frames}
	stored, end.indexTag = w.sealer.seal(l, stored, stored)
	end.indexStored = uint64(len(stored))
	end.digest = w.sealer.trailerDigest(w.header, end.fields())
	if err := w.write(stored); err != nil {
		return err
	}
	if err := w.write(end.encode()); err != nil {
		return err
	}
	return w.flush()
}

func formatDigest(sum []byte) string { return "sha256:" + hex.EncodeToString(sum) }
