package archive

import (
	"errors"
	"fmt"
)

// Errors that a caller distinguishes. They are wrapped with what is wrong and where.
var (
	// ErrFormat means that a file is no archive, or that its structure breaks a rule of the
	// format: it was not written by Holdfast, or was made to deceive a reader.
	ErrFormat = errors.New("not a valid checkpoint archive")
	// ErrDamaged means that a checksum differs, or that a part is missing: the archive was
	// changed after it was written.
	ErrDamaged = errors.New("the archive is damaged")
	// ErrUnsupported means that the archive uses something that this version does not know.
	ErrUnsupported = errors.New("the archive needs a newer version of Holdfast")
	// ErrKey means that the archive is encrypted, and that no key was given that opens it.
	ErrKey = errors.New("the archive is encrypted")
	// ErrIdentity means that the archive is of another container than expected.
	ErrIdentity = errors.New("the archive is of another container")
	// ErrLimit means that reading the archive would take more than the caller permits.
	ErrLimit = errors.New("the archive exceeds a limit")
	// ErrNoPage means that the checkpoint has no page at an address.
	ErrNoPage = errors.New("there is no such page in the checkpoint")
	// ErrPredecessor is the kind of a [PredecessorError].
	ErrPredecessor = errors.New("a part of the checkpoint lies in another archive")
)

// A PredecessorError means that a page lies in an earlier archive of the same container.
// This version reads such archives, and writes none, but does not follow the reference.
type PredecessorError struct {
	// Digest is the SHA-256 of the whole earlier archive, "sha256:" and 64 digits.
	Digest string
}

func (e *PredecessorError) Error() string {
	return fmt.Sprintf("%v, with the digest %s: this version cannot put them together", ErrPredecessor, e.Digest)
}

// Unwrap makes errors.Is(err, ErrPredecessor) true.
func (e *PredecessorError) Unwrap() error { return ErrPredecessor }

func formatError(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrFormat}, args...)...)
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDamaged}, args...)...)
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUnsupported}, args...)...)
}

func overLimit(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrLimit}, args...)...)
}
