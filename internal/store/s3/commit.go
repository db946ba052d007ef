package s3

import (
	"context"
	"errors"
	"fmt"

	"github.com/minio/minio-go/v7"

	"github.com/holdfast-io/holdfast/internal/store"
)

func (w *writer) Commit() error {
	if w.check() {
		w.err = w.publish()
	}
	if w.err != nil {
		return errors.Join(w.err, w.Abort())
	}
	w.ended = true
	w.cancel()
	return nil
}

// publish makes the object visible.
func (w *writer) publish() error {
	if w.uploadID == "" && len(w.current.chunks) <= 1 {
		return w.putSmall()
	}
	if err := w.upload(); err != nil {
		return err
	}
	parts, err := w.parts()
	if err != nil {
		return err
	}
	return w.publishOnce("completing "+w.key, func(ctx context.Context, options minio.PutObjectOptions) error {
		ctx = withStall(ctx, w.store.limits.complete)
		_, err := w.store.client.CompleteMultipartUpload(ctx, w.store.config.Bucket, w.name, w.uploadID, parts, options)
		return err
	})
}

// putSmall writes an object that is the current part.
func (w *writer) putSmall() error {
	sums := w.store.checksumOf(w.current.chunks...)
	return w.publishOnce("writing "+w.key, func(ctx context.Context, options minio.PutObjectOptions) error {
		options.UserMetadata = map[string]string{uploadMetadata: w.id, "X-Amz-Checksum-Crc32c": sums.crc32c}
		options.DisableContentSha256 = true
		reader := newPartReader(w.current)
		defer reader.detach()
		_, err := w.store.client.PutObject(ctx, w.store.config.Bucket, w.name, reader, w.current.size, "", sums.sha256, options)
		return err
	})
}

// A publishRequest makes the object visible. The options let it fail if there is one.
type publishRequest func(context.Context, minio.PutObjectOptions) error

// publishOnce repeats a request until the object is visible, or another one is.
func (w *writer) publishOnce(doing string, request publishRequest) error {
	err := w.store.retry(w.ctx, func(ctx context.Context) error {
		err := w.publishNew(ctx, request)
		if err != nil && (ctx.Err() != nil || isTransient(err)) {
			w.uncertain = true // The server may have done it.
		}
		return err
	})
	switch codeOf(err) {
	case minio.PreconditionFailed:
		return w.explainConflict(doing, w.store.existsError(w.key))
	case minio.NoSuchUpload:
		return w.explainConflict(doing, errDeleted)
	}
	return w.store.wrap(doing, err)
}

// publishNew makes the object visible if there is none.
func (w *writer) publishNew(ctx context.Context, request publishRequest) error {
	var conditional, unconditional minio.PutObjectOptions
	conditional.SetMatchETagExcept("*")
	err := request(ctx, conditional)
	if !rejectsCondition(err) {
		return err
	}
	// Another writer may be faster between these two requests: such a server cannot exclude
	// it.
	if err := w.mustNotExist(ctx); err != nil {
		return err
	}
	return request(ctx, unconditional)
}

// explainConflict returns nil if the object was written by an earlier request of this
// writer, whose response was lost. Otherwise it returns the conflict.
func (w *writer) explainConflict(doing string, conflict error) error {
	mine, err := w.isMine(w.ctx)
	switch {
	case err != nil:
		return fmt.Errorf("%s: looking whose object it is: %w", doing, err)
	case mine:
		return nil
	}
	w.uncertain = false
	return fmt.Errorf("%s: %w", doing, conflict)
}

// mustNotExist looks for the object. It returns what a server returns that can.
func (w *writer) mustNotExist(ctx context.Context) error {
	_, err := w.store.stat(ctx, w.name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err == nil:
		return minio.ErrorResponse{Code: minio.PreconditionFailed}
	}
	return err
}

// isMine is whether the object that is visible was written by this writer.
func (w *writer) isMine(ctx context.Context) (bool, error) {
	info, err := w.store.stat(ctx, w.name)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil && info.UserMetadata[uploadMetadata] == w.id, err
}

// Abort ends all requests of the upload, and removes what they have written.
func (w *writer) Abort() error {
	w.cancel()
	_ = w.uploads.Wait() // Its error is that of Write.
	if w.ended {
		return nil
	}
	w.ended = true
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), w.store.limits.cleanup)
	defer cancel()
	err := w.abortUpload(ctx)
	if w.uncertain {
		err = errors.Join(err, w.removeMine(ctx))
	}
	if err != nil {
		w.ended = false // Another Abort may succeed.
		return fmt.Errorf("removing what was written of %s, which remains until the key is deleted: %w", w.key, err)
	}
	return nil
}

// abortUpload aborts the upload, and once more if a request was cut.
func (w *writer) abortUpload(ctx context.Context) error {
	err := w.abortUntilGone(ctx)
	if err != nil || !w.cut.Load() {
		return err
	}
	return w.store.abortAgain(ctx, w.name, []string{w.uploadID})
}

// abortUntilGone aborts the upload until it is gone: a server may finish a part that it was
// receiving, and keep the upload for it. S3 says so of AbortMultipartUpload.
func (w *writer) abortUntilGone(ctx context.Context) error {
	for left := w.uploadID != ""; left; {
		err := w.store.abortUpload(ctx, w.name, w.uploadID)
		if err != nil {
			return err
		}
		left = false
		err = w.store.listUploads(ctx, w.name, func(u minio.ObjectMultipartInfo) error {
			left = left || u.Key == w.name && u.UploadID == w.uploadID
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// removeMine removes the object if Commit has made it visible without learning that.
func (w *writer) removeMine(ctx context.Context) error {
	info, err := w.store.stat(ctx, w.name)
	if errors.Is(err, store.ErrNotFound) || err == nil && info.UserMetadata[uploadMetadata] != w.id {
		return nil
	}
	if err != nil {
		return err
	}
	return w.store.removeVersion(ctx, w.name, info.VersionID)
}
