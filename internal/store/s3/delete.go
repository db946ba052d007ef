package s3

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/holdfast-io/holdfast/internal/store"
)

// Delete aborts the incomplete uploads of a key and deletes its object. In a bucket with
// versions it deletes all versions: an object that is only hidden by a delete marker is
// not gone.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := store.ValidateKey(key); err != nil {
		return err
	}
	if err := s.deleteName(ctx, s.name(key)); err != nil {
		return fmt.Errorf("deleting %s from bucket %s: %w", s.name(key), s.config.Bucket, err)
	}
	return nil
}

// deleteName tries everything, also when a part of it fails.
func (s *Store) deleteName(ctx context.Context, name string) error {
	return errors.Join(s.abortUploads(ctx, name), s.deleteVersions(ctx, name))
}

// abortUploads aborts the incomplete uploads of an object. It lists them again then: a
// part that was being sent may survive the first abort.
func (s *Store) abortUploads(ctx context.Context, name string) error {
	var aborted []string
	for found := true; found; {
		found = false
		err := s.listUploads(ctx, name, func(u minio.ObjectMultipartInfo) error {
			if u.Key != name {
				return nil
			}
			found, aborted = true, append(aborted, u.UploadID)
			return s.abortUpload(ctx, name, u.UploadID)
		})
		if err != nil {
			return err
		}
	}
	return s.abortAgain(ctx, name, aborted)
}

// abortAgain aborts uploads once more when a server has noticed that their connections were
// cut. Until then it may write a part that it was receiving, and keep it for an upload that it
// does not list any more.
func (s *Store) abortAgain(ctx context.Context, name string, uploads []string) error {
	if len(uploads) == 0 {
		return nil
	}
	select {
	case <-time.After(s.limits.settle):
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, id := range uploads {
		if err := s.abortUpload(ctx, name, id); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) abortUpload(ctx context.Context, name, uploadID string) error {
	err := s.retry(ctx, func(ctx context.Context) error {
		return s.client.AbortMultipartUpload(ctx, s.config.Bucket, name, uploadID)
	})
	if codeOf(err) == minio.NoSuchUpload {
		return nil
	}
	return s.wrap("removing an incomplete upload, whose parts remain", err)
}

// deleteVersions deletes all versions and delete markers of an object.
func (s *Store) deleteVersions(ctx context.Context, name string) error {
	versions, err := s.versions(ctx, name)
	switch codeOf(err) {
	case minio.NotImplemented, minio.MethodNotAllowed:
		return s.removeVersion(ctx, name, "") // The server has no versions.
	case minio.AccessDenied:
		return s.deleteUnversioned(ctx, name)
	}
	if err != nil {
		return s.wrap("listing its versions", err)
	}
	var errs []error
	for _, version := range versions {
		if version == "null" && len(versions) == 1 {
			version = "" // So the bucket has no versions, and s3:DeleteObject suffices.
		}
		errs = append(errs, s.removeVersion(ctx, name, version))
	}
	return errors.Join(errs...)
}

// versions returns the IDs of an object's versions. The error is not wrapped.
func (s *Store) versions(ctx context.Context, name string) ([]string, error) {
	var ids []string
	err := s.retry(ctx, func(ctx context.Context) error {
		ids = nil
		options := minio.ListObjectsOptions{Prefix: name, Recursive: true, WithVersions: true}
		for o := range s.client.ListObjectsIter(ctx, s.config.Bucket, options) {
			if o.Err != nil {
				return o.Err
			}
			if o.Key > name { // They are sorted.
				break
			}
			ids = append(ids, idOf(o))
		}
		return ctx.Err()
	})
	return ids, err
}

// idOf returns the ID of a version. One from before the bucket had versions is "null".
func idOf(o minio.ObjectInfo) string {
	if o.VersionID == "" {
		return "null"
	}
	return o.VersionID
}

// deleteUnversioned deletes an object when its versions may not be listed.
func (s *Store) deleteUnversioned(ctx context.Context, name string) error {
	info, err := s.stat(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.VersionID != "" && info.VersionID != "null" {
		return fmt.Errorf("%w: the bucket keeps versions, and they may not be listed: permit s3:ListBucketVersions and s3:DeleteObjectVersion; the object remains", store.ErrDenied)
	}
	return s.removeVersion(ctx, name, "")
}

// removeVersion removes one version; "" is the object of a bucket without versions.
func (s *Store) removeVersion(ctx context.Context, name, version string) error {
	err := s.retry(ctx, func(ctx context.Context) error {
		return s.client.RemoveObject(ctx, s.config.Bucket, name, minio.RemoveObjectOptions{VersionID: version})
	})
	switch code := codeOf(err); {
	case code == minio.NoSuchKey || code == minio.NoSuchVersion:
		return nil
	case code == minio.AccessDenied || isLocked(err):
		what := "the object"
		if version != "" {
			what = "its version " + version
		}
		return s.wrap(what+" remains: an object lock protects it, or s3:DeleteObject or s3:DeleteObjectVersion is missing: removing it", err)
	}
	return s.wrap("removing the object, which remains", err)
}
