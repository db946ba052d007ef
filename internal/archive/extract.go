package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"
)

// Extract writes all files into a directory that exists. Nothing outside of it is touched,
// also if it has symbolic links, and no file that exists is overwritten. Pages of zeros become
// holes. Directories get the mode 0700 and files 0600: memory holds secrets.
func (a *Reader) Extract(ctx context.Context, directory string) error {
	root, err := os.OpenRoot(directory)
	if err != nil {
		return fmt.Errorf("opening the directory: %w", err)
	}
	defer root.Close()
	return a.eachFile(ctx, func(f *file, s *stream) error { return extractFile(root, s, f, os.O_CREATE|os.O_EXCL, nil) })
}

// Unpack does the work of [Reader.Verify] and of [Reader.Extract] in one pass: the archive is
// read once. Whether the files are those of the archive is known only when it returns nil, so
// that nobody may use them before; after an error the caller removes them. Files in prepared are
// there already, and have nothing but zeros.
func (a *Reader) Unpack(ctx context.Context, directory string, prepared map[string]int64) (*Verification, error) {
	root, err := os.OpenRoot(directory)
	if err != nil {
		return nil, fmt.Errorf("opening the directory: %w", err)
	}
	defer root.Close()
	return a.verify(ctx, func(s *stream, f *file, copied destination) error {
		flags := os.O_CREATE | os.O_EXCL
		if _, there := prepared[f.info.Name]; there {
			flags = 0
		}
		return extractFile(root, s, f, flags, copied)
	})
}

// eachFile calls do for all files in order. It must read the whole file from the stream.
func (a *Reader) eachFile(ctx context.Context, do func(*file, *stream) error) error {
	s, err := a.stream(ctx, 0, len(a.contents.frames))
	if err != nil {
		return err
	}
	defer s.close()
	for _, f := range a.contents.files {
		if err := do(f, s); err != nil {
			return err
		}
	}
	return nil
}

// extractFile writes the next file of the stream below root, which it opens with flags, and to
// copied, unless that is nil.
func extractFile(root *os.Root, s *stream, f *file, flags int, copied destination) error {
	if err := root.MkdirAll(path.Dir(f.info.Name), 0o700); err != nil {
		return fmt.Errorf("making a directory for %q: %w", f.info.Name, err)
	}
	out, err := root.OpenFile(f.info.Name, os.O_WRONLY|flags, 0o600)
	if err != nil {
		return fmt.Errorf("opening %q: %w", f.info.Name, err)
	}
	var to destination = sparseFile{out}
	if copied != nil {
		to = both{to, copied}
	}
	err = s.copyFile(f, to)
	if err == nil {
		err = out.Truncate(f.info.Size) // a hole at the end
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("extracting %q: %w", f.info.Name, err)
	}
	return nil
}

// A sparseFile leaves holes for zeros.
type sparseFile struct{ *os.File }

func (f sparseFile) zeros(n int64) error {
	_, err := f.Seek(n, io.SeekCurrent)
	return err
}

// both are two destinations of the same contents.
type both struct{ first, second destination }

func (b both) Write(p []byte) (int, error) {
	if n, err := b.first.Write(p); err != nil {
		return n, err
	}
	return b.second.Write(p)
}

func (b both) zeros(n int64) error { return errors.Join(b.first.zeros(n), b.second.zeros(n)) }

// WriteTar writes all files as a tar archive, in the layout in which the kubelet leaves
// checkpoints and that checkpointctl reads. What it has written when it returns an error is
// not a whole tar archive.
func (a *Reader) WriteTar(ctx context.Context, w io.Writer) error {
	out := tar.NewWriter(w)
	directories := map[string]bool{".": true}
	err := a.eachFile(ctx, func(f *file, s *stream) error {
		if err := writeDirectories(out, path.Dir(f.info.Name), a.head.Created, directories); err != nil {
			return fmt.Errorf("writing the directory of %q: %w", f.info.Name, err)
		}
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: f.info.Name, Size: f.info.Size, Mode: int64(f.info.Mode), ModTime: a.head.Created,
		}
		if err := out.WriteHeader(header); err != nil {
			return fmt.Errorf("writing %q: %w", f.info.Name, err)
		}
		return s.copyFile(f, filledWriter{out})
	})
	if err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("ending the tar archive: %w", err)
	}
	return nil
}

// writeDirectories writes the entries of a directory and of those above it, once.
func writeDirectories(out *tar.Writer, name string, modified time.Time, written map[string]bool) error {
	if written[name] {
		return nil
	}
	if err := writeDirectories(out, path.Dir(name), modified, written); err != nil {
		return err
	}
	written[name] = true
	return out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o700, ModTime: modified})
}
