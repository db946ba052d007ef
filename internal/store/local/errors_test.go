package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/storetest"
)

// mountTmpfs mounts a tmpfs until the test ends.
func mountTmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("store-test", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mounting a tmpfs, which needs root: %v", err)
	}
	t.Cleanup(func() {
		// Writers that a test has left have open files.
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
	return dir
}

func TestFullFilesystem(t *testing.T) {
	t.Parallel()
	dir := mountTmpfs(t, "size=4m")
	s := NewInVolume(dir)
	storetest.MustPut(t, s, "before", storetest.Data("before", 1<<20))
	err := storetest.Put(t.Context(), s, "a/b", storetest.Data("b", 8<<20))
	storetest.WantError(t, "writing more than there is room for", err, store.ErrFull)
	wantAdvice(t, err, "free space")
	wantFiles(t, dir, "before")

	w := storetest.MustCreate(t.Context(), t, s, "c", nil)
	if _, err = w.Write(storetest.Data("c", 8<<20)); !errors.Is(err, store.ErrFull) {
		t.Errorf("write: %v", err)
	}
	storetest.WantError(t, "committing after a failed write", w.Commit(), store.ErrFull)
	storetest.WantList(t, s, "", "before")
	storetest.WantData(t, s, "before", storetest.Data("before", 1<<20))
	storetest.Unmount(t, dir)
	if err := unix.Mount("store-test", dir, "tmpfs", 0, ""); err != nil { // For the cleanup.
		t.Fatal(err)
	}
}

func TestNoInodes(t *testing.T) {
	t.Parallel()
	s := NewInVolume(mountTmpfs(t, "size=4m,nr_inodes=3"))
	storetest.WantError(t, "check", s.Check(t.Context()), nil)
	err := storetest.Put(t.Context(), s, "a/b/c", nil)
	storetest.WantError(t, "writing without inodes", err, store.ErrFull)
}

func TestReadOnlyFilesystem(t *testing.T) {
	t.Parallel()
	dir := mountTmpfs(t, "size=4m")
	s := NewInVolume(dir)
	storetest.MustPut(t, s, "a", []byte("a"))
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, createErr := s.Create(t.Context(), "b")
	for what, err := range map[string]error{"check": s.Check(t.Context()), "create": createErr, "delete": s.Delete(t.Context(), "a")} {
		storetest.WantError(t, what, err, store.ErrInvalid)
		wantAdvice(t, err, "read-only")
	}
	storetest.WantData(t, s, "a", []byte("a"))
}

func TestVolumeThatIsNotMounted(t *testing.T) {
	t.Parallel()
	missing, empty := filepath.Join(t.TempDir(), "volume"), t.TempDir()
	for name, dir := range map[string]string{"the directory is missing": missing, "the directory is there": empty} {
		s := NewInVolume(dir)
		_, createErr := s.Create(t.Context(), "b")
		_, openErr := s.Open(t.Context(), "b")
		for what, err := range map[string]error{
			"check": s.Check(t.Context()), "create": createErr, "open": openErr,
			"delete": s.Delete(t.Context(), "a"), "list": s.List(t.Context(), "", nil),
		} {
			storetest.WantError(t, name+": "+what, err, store.ErrUnavailable)
			wantAdvice(t, err, "no volume is mounted at "+dir)
			if errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: %s: %v would look as if the object were gone", name, what, err)
			}
		}
	}
	if _, err := os.Stat(missing); !os.IsNotExist(err) {
		t.Errorf("the directory was created: %v", err)
	}
	wantFiles(t, empty)
}

// A volume may go while an object is written. Its directory stays a moment longer, and must
// not receive the object.
func TestVolumeThatIsUnmountedDuringAnUpload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("store-test", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatalf("mounting a tmpfs, which needs root: %v", err)
	}
	s := NewInVolume(dir)
	w := storetest.MustCreate(t.Context(), t, s, "a/b", []byte("b"))
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	storetest.WantError(t, "commit", w.Commit(), store.ErrUnavailable)
	wantFiles(t, dir)
}

func TestDirectoryOfAnotherUser(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := New(filepath.Join(dir, "store"))
	storetest.MustPut(t, s, "dir/a", []byte("a"))
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // The thread ends with the goroutine, so nothing else runs as that user.
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Setfsuid(65534); err != nil {
			t.Error(err)
		}
		_, createErr := s.Create(t.Context(), "b")
		_, openErr := s.Open(t.Context(), "dir/a")
		for what, err := range map[string]error{
			"check": s.Check(t.Context()), "create": createErr, "open": openErr,
			"delete": s.Delete(t.Context(), "dir/a"), "list": s.List(t.Context(), "", nil),
			"creating the directory": New(filepath.Join(dir, "new")).Check(t.Context()),
		} {
			storetest.WantError(t, what, err, store.ErrDenied)
			wantAdvice(t, err, "give the directory to the user")
		}
	}()
	<-done
}

func TestDirectoryThatCannotBeOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := New(filepath.Join(dir, "file")).Check(t.Context())
	storetest.WantError(t, "a file as the directory", err, store.ErrInvalid)
	err = New("relative").Check(t.Context())
	storetest.WantError(t, "a relative path", err, store.ErrInvalid)
	wantAdvice(t, err, "starts with a slash")
	s := New(dir)
	err = storetest.Put(t.Context(), s, "file/object", nil)
	storetest.WantError(t, "an object below a file", err, store.ErrInvalid)
}

func TestKindsOfErrors(t *testing.T) {
	tests := map[string]struct {
		errno syscall.Errno
		want  error
	}{
		"an exceeded quota is a full store":            {unix.EDQUOT, store.ErrFull},
		"a broken disk is an unavailable store":        {unix.EIO, store.ErrUnavailable},
		"a stale NFS handle is an unavailable store":   {unix.ESTALE, store.ErrUnavailable},
		"an immutable directory is a denial":           {unix.EPERM, store.ErrDenied},
		"too many open files is an unavailable store":  {unix.EMFILE, store.ErrUnavailable},
		"a loop of links is a wrong configuration":     {unix.ELOOP, store.ErrInvalid},
		"an error that nobody knows is passed through": {unix.EBADMSG, unix.EBADMSG},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := New("/dir").wrap("writing a", &os.PathError{Op: "write", Path: "a", Err: tt.errno})
			storetest.WantError(t, "wrapped", err, tt.want)
			storetest.WantError(t, "the cause", err, tt.errno)
			wantAdvice(t, err, "writing a in /dir")
		})
	}
	if err := New("/dir").wrap("writing", nil); err != nil {
		t.Errorf("no error becomes %v", err)
	}
}

// wantAdvice checks that an error has a text.
func wantAdvice(t *testing.T, err error, text string) {
	t.Helper()
	if !strings.Contains(fmt.Sprint(err), text) {
		t.Errorf("the error %q does not say %q", err, text)
	}
}
