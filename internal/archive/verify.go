package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
)

// A Verification says what Verify has found.
type Verification struct {
	Digest string `json:"digest"` // SHA-256 of the archive: "sha256:" and 64 digits
	// Predecessors are the digests of earlier archives that this one refers to, and that
	// were not verified.
	Predecessors []string `json:"predecessors,omitempty"`
}

// Verify reads the whole archive once. It checks every checksum, decompresses every frame, and
// compares the addresses of pages in the index with the pagemaps of CRIU, so that a restore of
// single pages and a restore of all files see the same memory.
func (a *Reader) Verify(ctx context.Context) (*Verification, error) {
	return a.verify(ctx, discardFile)
}

// A take takes the next file from a stream. What is in it goes to copied, too, unless that is
// nil.
type take func(s *stream, f *file, copied destination) error

// verify does what Verify says, and hands each file to take.
func (a *Reader) verify(ctx context.Context, take take) (*Verification, error) {
	digest := sha256.New()
	if err := a.hash(digest, 0, a.frames); err != nil {
		return nil, err
	}
	s, err := a.streamThrough(ctx, 0, len(a.contents.frames), func(r io.Reader) io.Reader { return io.TeeReader(r, digest) })
	if err != nil {
		return nil, err
	}
	err = a.verifyFiles(s, take)
	s.close()
	if err != nil {
		return nil, err
	}
	start := a.frames + int64(a.end.framesSize)
	if err := a.hash(digest, start, a.size-start); err != nil {
		return nil, err
	}
	return &Verification{Digest: formatDigest(digest.Sum(nil)), Predecessors: a.Predecessors()}, nil
}

func (a *Reader) hash(h hash.Hash, offset, length int64) error {
	r, err := a.section(offset, length)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.CopyN(h, r, length); err != nil {
		return fmt.Errorf("reading %d bytes of the archive at %d: %w", length, offset, noEOF(err))
	}
	return nil
}

// verifyFiles takes all files and compares the pagemaps with the index.
func (a *Reader) verifyFiles(s *stream, take take) error {
	described := map[AddressSpace]bool{}
	for _, f := range a.contents.files {
		space, isPagemap := addressSpaceOf(f.info.Name)
		if !isPagemap {
			if err := take(s, f, nil); err != nil {
				return err
			}
			continue
		}
		described[space] = true
		if err := a.verifyPagemap(s, f, space, take); err != nil {
			return err
		}
	}
	for space := range a.contents.memory {
		if !described[space] {
			return formatError("its index describes the memory of %v, of which it has no pagemap", space)
		}
	}
	return nil
}

// discardFile decompresses the frames of a file. Pages of zeros and of predecessors have none.
func discardFile(s *stream, f *file, copied destination) error {
	if copied != nil {
		return s.copyFile(f, copied)
	}
	for range f.frames {
		if _, err := s.next(); err != nil {
			return fmt.Errorf("reading %q: %w", f.info.Name, err)
		}
	}
	return nil
}

func (a *Reader) verifyPagemap(s *stream, f *file, space AddressSpace, take take) error {
	r, w := io.Pipe()
	parsed := make(chan error, 1)
	go func() {
		parsed <- a.compareMemory(r, space)
		_, err := io.Copy(io.Discard, r) // so that the copy below ends
		r.CloseWithError(err)
	}()
	err := take(s, f, filledWriter{w})
	w.CloseWithError(err)
	if parseErr := <-parsed; err == nil {
		err = parseErr
	}
	return err
}

// compareMemory compares a pagemap with the index. One that this version does not understand
// is not in the index.
func (a *Reader) compareMemory(r io.Reader, space AddressSpace) error {
	indexed := a.contents.memory[space]
	parsed, err := parsePagemap(r, space, a.head.PageSize)
	switch {
	case err != nil:
		return fmt.Errorf("the pagemap of %v: %w", space, err)
	case parsed.unknown && indexed == nil:
		return nil
	case indexed == nil:
		return formatError("its index does not describe the memory of %v", space)
	}
	sameFile := indexed.file == nil || indexed.file.info.Name == pagesFile(parsed.pagesID)
	if !sameFile || !bytes.Equal(parsed.runs.bytes(), indexed.runs.encoded) {
		return formatError("its index says of the memory of %v something else than the pagemap", space)
	}
	return nil
}
