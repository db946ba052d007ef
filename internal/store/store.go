package store

import (
	"context"
	"errors"
	"io"
	"time"
)

// A Store keeps objects. Its methods may be called concurrently, also by other processes
// and from other nodes. [ValidateKey] says which keys it takes; other keys are errors.
type Store interface {
	// Check reports whether the store can be used: it exists, accepts the credentials, and
	// takes, shows and deletes objects. It leaves nothing behind.
	Check(ctx context.Context) error

	// Create starts to write an object. It is not visible before Commit has returned. An
	// object that exists is not replaced: Create returns [ErrExists], or Commit does if
	// another writer was faster.
	Create(ctx context.Context, key string) (Writer, error)

	// Open opens an object for reading, or returns [ErrNotFound]. The context limits all
	// that is read.
	Open(ctx context.Context, key string) (Object, error)

	// Delete deletes an object, and everything that interrupted uploads of the key have left.
	// It is no error if there is nothing. When it returns nil, the object is gone. An upload
	// of the key that is still running fails.
	Delete(ctx context.Context, key string) error

	// List calls each for all objects and incomplete uploads whose key starts with a prefix,
	// in no order, until it returns an error. The prefix need not end with a slash. It may be
	// empty.
	List(ctx context.Context, prefix string, each func(Info) error) error
}

// A Writer writes one object. A caller ends it with Commit or Abort, once, also after an
// error; after a Commit that failed, Abort is allowed and does nothing more. The context
// of Create limits Write and Commit. After an error of Write, Commit fails.
type Writer interface {
	io.Writer

	// Commit ends the object and makes it visible. When it returns nil, the object survives a
	// power cut, as far as the store promises that. When it returns an error, the object is
	// not visible and nothing of it is left, unless the error says otherwise.
	Commit() error

	// Abort discards what was written. It also works when the context has ended.
	Abort() error
}

// An Object is an object that is open for reading. It may be used concurrently.
type Object interface {
	io.ReaderAt
	io.Closer

	// Size is the object's size in bytes.
	Size() int64

	// NewReader reads length bytes from an offset, with fewer requests than as many calls of
	// ReadAt. The range must be within the object.
	NewReader(offset, length int64) (io.ReadCloser, error)
}

// Info describes an object or an incomplete upload.
type Info struct {
	Key      string
	Size     int64 // bytes; 0 if it is unknown
	Modified time.Time
	// Incomplete is whether it is an upload that has not ended. There may be several of one
	// key, and an object beside them.
	Incomplete bool
}

// Errors that a caller distinguishes. Stores wrap them with the cause and with what to do
// about it. An error that wraps none of them, and is not the context's, is permanent.
var (
	ErrNotFound = errors.New("the object does not exist")
	ErrExists   = errors.New("the object exists already")
	// ErrInvalid means that the store cannot be used as it is configured: the bucket or the
	// directory does not exist, or the endpoint is no such store.
	ErrInvalid = errors.New("the store is not usable as configured")
	// ErrDenied means that the store rejects the credentials, or does not permit the
	// request.
	ErrDenied = errors.New("the store denies access")
	// ErrFull means that the store has no room.
	ErrFull = errors.New("the store is full")
	// ErrUnavailable means that the store cannot be reached or is overloaded: a retry may
	// succeed.
	ErrUnavailable = errors.New("the store is unavailable")
)
