package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/internal/store"
)

// uploadMetadata is the metadata of an object that has the name of its upload.
const uploadMetadata = "Holdfast-Upload"

// Create looks whether the object is there. It sends nothing else before the first chunk
// is full.
func (s *Store) Create(ctx context.Context, key string) (store.Writer, error) {
	if err := store.ValidateKey(key); err != nil {
		return nil, err
	}
	_, err := s.stat(ctx, s.name(key))
	if err == nil {
		return nil, s.existsError(key)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("looking for %s before it is written: %w", key, err)
	}
	return s.newWriter(ctx, key, s.name(key)), nil
}

func (s *Store) existsError(key string) error {
	return fmt.Errorf("%w: %s in bucket %s: delete it before another one is written", store.ErrExists, s.name(key), s.config.Bucket)
}

// A writer writes one object. Write fills the current part; goroutines upload full ones.
type writer struct {
	store *Store
	ctx   context.Context //nolint:containedctx // the context of Create limits the writer, see store.Writer
	key   string
	name  string // the key with the prefix
	id    string // of this upload, in the object's metadata

	current  *part
	number   int // of the current part; the first is 1
	free     chan []byte
	chunks   int // that have been allocated
	uploadID string
	uploads  *errgroup.Group
	running  context.Context //nolint:containedctx // of the uploads; it ends with the first error
	cancel   context.CancelFunc

	mu   sync.Mutex
	done []minio.CompletePart
	// cut is whether a request has ended without an answer: the server may go on with it.
	cut atomic.Bool

	ended     bool // by Commit or Abort
	uncertain bool // whether the object may be visible although Commit has failed
	err       error
}

func (s *Store) newWriter(ctx context.Context, key, name string) *writer {
	w := &writer{store: s, ctx: ctx, key: key, name: name, id: rand.Text(), current: &part{}, number: 1, free: make(chan []byte, maxChunks)}
	running, cancel := context.WithCancel(ctx)
	w.cancel = cancel
	w.uploads, w.running = errgroup.WithContext(running)
	return w
}

func (w *writer) Write(p []byte) (int, error) {
	written := 0
	for w.check() && len(p) > 0 {
		if !w.current.hasRoom() {
			w.err = w.grow()
			continue
		}
		n := w.current.write(p)
		p, written = p[n:], written+n
	}
	return written, w.err
}

// check is whether the writer can go on. It takes over an error of the uploads.
func (w *writer) check() bool {
	if w.err == nil && w.ended {
		w.err = fmt.Errorf("writing %s: %w", w.key, fs.ErrClosed)
	}
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	if w.err == nil && w.running.Err() != nil {
		w.err = w.uploads.Wait()
	}
	return w.err == nil
}

// grow gives the current part another chunk, or starts to upload it and begins the next.
func (w *writer) grow() error {
	if len(w.current.chunks) == chunksOfPart(w.number) {
		if err := w.upload(); err != nil {
			return err
		}
		w.number++
		w.current = &part{}
	}
	if w.number > maxParts {
		return fmt.Errorf("writing %s: the object is larger than the %d bytes of %d parts: keep it in another store", w.key, int64(MaxObject), maxParts)
	}
	chunk, err := w.chunk()
	if err != nil {
		return err
	}
	w.current.chunks = append(w.current.chunks, chunk)
	return nil
}

// chunk returns an empty chunk, and waits for one if too many are in use.
func (w *writer) chunk() ([]byte, error) {
	select {
	case chunk := <-w.free:
		return chunk, nil
	default:
	}
	if w.chunks < chunksAtOnce(w.number) {
		w.chunks++
		return make([]byte, 0, chunkSize), nil
	}
	select {
	case chunk := <-w.free:
		return chunk, nil
	case <-w.running.Done():
		if err := w.ctx.Err(); err != nil {
			return nil, err
		}
		return nil, w.uploads.Wait()
	}
}

// upload starts to upload the current part, and starts the upload before the first one.
func (w *writer) upload() error {
	if w.uploadID == "" {
		if err := w.startMultipart(); err != nil {
			return err
		}
	}
	p, number := w.current, w.number
	w.uploads.Go(func() error {
		err := w.uploadPart(p, number)
		for _, chunk := range p.chunks {
			w.free <- chunk[:0]
		}
		return err
	})
	return nil
}

func (w *writer) startMultipart() error {
	options := minio.PutObjectOptions{UserMetadata: map[string]string{
		uploadMetadata:             w.id,
		"X-Amz-Checksum-Algorithm": "CRC32C",
	}}
	err := w.store.retry(w.ctx, func(ctx context.Context) (err error) {
		w.uploadID, err = w.store.client.NewMultipartUpload(ctx, w.store.config.Bucket, w.name, options)
		return err
	})
	return w.store.wrap("starting to write "+w.key, err)
}

func (w *writer) uploadPart(p *part, number int) error {
	sums := w.store.checksumOf(p.chunks...)
	options := minio.PutObjectPartOptions{
		CustomHeader:         map[string][]string{"X-Amz-Checksum-Crc32c": {sums.crc32c}},
		Sha256Hex:            sums.sha256,
		DisableContentSha256: true, // It is sent in a header, not between the data.
	}
	var sent minio.ObjectPart
	err := w.store.retry(w.running, func(ctx context.Context) (err error) {
		reader := newPartReader(p)
		defer reader.detach()
		sent, err = w.store.client.PutObjectPart(ctx, w.store.config.Bucket, w.name, w.uploadID, number, reader, p.size, options)
		if err == nil && sent.ChecksumCRC32C != "" && sent.ChecksumCRC32C != sums.crc32c {
			err = errCorrupted
		}
		if err != nil {
			w.cut.Store(true)
		}
		return err
	})
	if err != nil {
		return w.store.wrap(fmt.Sprintf("writing part %d of %s", number, w.key), w.explainGone(err))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = append(w.done, minio.CompletePart{PartNumber: number, ETag: sent.ETag, ChecksumCRC32C: sums.crc32c})
	return nil
}

var errDeleted = errors.New("the upload was deleted while it was running: write the object again")

// explainGone replaces the error that the upload does not exist.
func (w *writer) explainGone(err error) error {
	if codeOf(err) == minio.NoSuchUpload {
		return errDeleted
	}
	return err
}

// parts waits for the uploads and returns all parts in their order.
func (w *writer) parts() ([]minio.CompletePart, error) {
	if err := w.uploads.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(w.done, func(a, b minio.CompletePart) int { return a.PartNumber - b.PartNumber })
	return w.done, nil
}
