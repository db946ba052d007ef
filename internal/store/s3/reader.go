package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/holdfast-io/holdfast/internal/store"
)

// Open asks for the size of an object.
func (s *Store) Open(ctx context.Context, key string) (store.Object, error) {
	if err := store.ValidateKey(key); err != nil {
		return nil, err
	}
	return s.open(ctx, s.name(key))
}

func (s *Store) open(ctx context.Context, name string) (store.Object, error) {
	info, err := s.stat(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		err = s.explainNotFound(ctx, name)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s in bucket %s: %w", name, s.config.Bucket, err)
	}
	return &object{store: s, ctx: ctx, name: name, size: info.Size, etag: info.ETag}, nil
}

// stat returns what the server says about an object. The error is a wrapped one.
func (s *Store) stat(ctx context.Context, name string) (info minio.ObjectInfo, err error) {
	err = s.retry(ctx, func(ctx context.Context) error {
		info, err = s.client.StatObject(ctx, s.config.Bucket, name, minio.StatObjectOptions{})
		return err
	})
	if codeOf(err) == minio.NoSuchKey {
		return info, store.ErrNotFound
	}
	return info, s.wrap("looking for "+name, err)
}

// explainNotFound finds out why an object was not found. The response to HEAD has no body,
// so a missing bucket looks like a missing object. But it must not: an object that is
// gone is forgotten.
func (s *Store) explainNotFound(ctx context.Context, name string) error {
	err := s.retry(ctx, func(ctx context.Context) error {
		_, err := s.objectsAfter(ctx, minio.ListObjectsOptions{Prefix: name, MaxKeys: 1})
		return err
	})
	if err != nil {
		return s.wrap("looking for "+name, err)
	}
	return store.ErrNotFound
}

type object struct {
	store *Store
	ctx   context.Context //nolint:containedctx // the context of Open limits what is read, see store.Store
	name  string
	size  int64
	etag  string
}

func (o *object) Size() int64  { return o.size }
func (o *object) Close() error { return nil }

// ReadAt sends one request, and more if connections break.
func (o *object) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fmt.Errorf("reading %s at %d: the offset is negative", o.name, offset)
	}
	if len(p) == 0 {
		return 0, nil
	}
	wanted := min(int64(len(p)), max(o.size-offset, 0))
	n := 0
	if wanted > 0 {
		r, err := o.NewReader(offset, wanted)
		if err != nil {
			return 0, err
		}
		defer r.Close()
		if n, err = io.ReadFull(r, p[:wanted]); err != nil {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (o *object) NewReader(offset, length int64) (io.ReadCloser, error) {
	if err := store.ValidateRange(o, offset, length); err != nil {
		return nil, fmt.Errorf("reading %s: %w", o.name, err)
	}
	if err := o.ctx.Err(); err != nil {
		return nil, err
	}
	return &reader{object: o, offset: offset, end: offset + length}, nil
}

// A reader reads a range. When its connection breaks, it goes on where that was.
type reader struct {
	object *object
	offset int64 // of the next byte
	end    int64
	body   io.ReadCloser // nil before the first request and after a failed one
}

func (r *reader) Read(p []byte) (int, error) {
	if r.offset == r.end {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	n := 0
	err := r.object.store.retry(r.object.ctx, func(ctx context.Context) (err error) {
		if r.body == nil {
			if r.body, err = r.object.get(ctx, r.offset, r.end-r.offset); err != nil {
				return err
			}
		}
		n, err = r.body.Read(p[:min(int64(len(p)), r.end-r.offset)])
		if n > 0 || err == nil {
			return nil // An error comes again with the next Read.
		}
		r.body.Close()
		r.body = nil
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
	r.offset += int64(n)
	return n, r.object.store.wrap("reading "+r.object.name, err)
}

func (r *reader) Close() error {
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.body = nil
	r.offset = r.end
	return err
}

// get requests a range. The ETag makes sure that it is one of the object that was opened.
func (o *object) get(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	var options minio.GetObjectOptions
	if err := options.SetRange(offset, offset+length-1); err != nil {
		return nil, err
	}
	if err := options.SetMatchETag(o.etag); err != nil {
		return nil, err
	}
	body, _, header, err := o.store.client.GetObject(ctx, o.store.config.Bucket, o.name, options)
	if codeOf(err) == minio.PreconditionFailed {
		return nil, errReplaced
	}
	if err != nil {
		return nil, err
	}
	if got := header.Get("Content-Range"); !strings.HasPrefix(got, fmt.Sprintf("bytes %d-%d/", offset, offset+length-1)) {
		body.Close()
		return nil, fmt.Errorf("%w: the server ignores that only a range was requested: its Content-Range is %.80q", store.ErrInvalid, got)
	}
	return body, nil
}

var errReplaced = fmt.Errorf("%w: another object has been written with its name since it was opened", store.ErrNotFound)
