package s3

import (
	"context"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/holdfast-io/holdfast/internal/store"
)

// List lists objects, then incomplete uploads. It leaves out names that are no keys:
// others have written them.
func (s *Store) List(ctx context.Context, prefix string, each func(store.Info) error) error {
	if err := store.ValidatePrefix(prefix); err != nil {
		return err
	}
	directory := s.config.directory()
	keyOf := func(name string) (string, bool) {
		key, ok := strings.CutPrefix(name, directory)
		return key, ok && store.ValidateKey(key) == nil
	}
	err := s.listObjects(ctx, directory+prefix, func(o minio.ObjectInfo) error {
		key, ok := keyOf(o.Key)
		if !ok {
			return nil
		}
		return each(store.Info{Key: key, Size: o.Size, Modified: o.LastModified})
	})
	if err != nil {
		return err
	}
	return s.listUploads(ctx, directory+prefix, func(u minio.ObjectMultipartInfo) error {
		key, ok := keyOf(u.Key)
		if !ok {
			return nil
		}
		return each(store.Info{Key: key, Modified: u.Initiated, Incomplete: true})
	})
}

// pageSize is the most that a server returns at once.
const pageSize = 1000

// listObjects calls each for all objects whose name starts with a prefix. A page that
// fails is requested again; each is not called twice for an object.
func (s *Store) listObjects(ctx context.Context, prefix string, each func(minio.ObjectInfo) error) error {
	for after, more := "", true; more; {
		var page []minio.ObjectInfo
		err := s.retry(ctx, func(ctx context.Context) (err error) {
			page, err = s.objectsAfter(ctx, minio.ListObjectsOptions{Prefix: prefix, StartAfter: after, MaxKeys: pageSize})
			return err
		})
		if err != nil {
			return s.wrap("listing bucket "+s.config.Bucket, err)
		}
		for _, o := range page {
			if err := each(o); err != nil {
				return err
			}
			after = o.Key
		}
		more = len(page) == pageSize
	}
	return nil
}

// objectsAfter returns a page of objects, of MaxKeys.
func (s *Store) objectsAfter(ctx context.Context, options minio.ListObjectsOptions) ([]minio.ObjectInfo, error) {
	var page []minio.ObjectInfo
	options.Recursive = true
	for o := range s.client.ListObjectsIter(ctx, s.config.Bucket, options) {
		if o.Err != nil {
			return nil, o.Err
		}
		if page = append(page, o); len(page) == options.MaxKeys {
			break
		}
	}
	return page, ctx.Err()
}

// listUploads calls each for all incomplete uploads whose name starts with a prefix.
func (s *Store) listUploads(ctx context.Context, prefix string, each func(minio.ObjectMultipartInfo) error) error {
	for key, id := "", ""; ; {
		var page minio.ListMultipartUploadsResult
		err := s.retry(ctx, func(ctx context.Context) (err error) {
			page, err = s.client.ListMultipartUploads(ctx, s.config.Bucket, prefix, key, id, "", pageSize)
			return err
		})
		if err != nil {
			return s.wrap("listing the incomplete uploads of bucket "+s.config.Bucket, err)
		}
		for _, u := range page.Uploads {
			if !strings.HasPrefix(u.Key, prefix) {
				continue
			}
			if err := each(u); err != nil {
				return err
			}
		}
		if !page.IsTruncated {
			return nil
		}
		key, id = page.NextKeyMarker, page.NextUploadIDMarker
	}
}
