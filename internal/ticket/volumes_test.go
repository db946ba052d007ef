package ticket

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-io/holdfast/internal/ephemeral"
)

// keep stages a container with the files of a volume.
func keep(t *testing.T, c *Container, volume, text string) {
	t.Helper()
	name := filepath.Join(c.DataDir(), ephemeral.FileName(volume))
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600), c.KeepVolume(volume)); err != nil {
		t.Fatal(err)
	}
}

// putBack returns what is put back, "" for nothing.
func putBack(t *testing.T, c *Container, volume string, result error) string {
	t.Helper()
	found := ""
	err := c.PutBack(volume, func(archive *os.File) error {
		text, err := io.ReadAll(archive)
		found = string(text)
		return errors.Join(result, err)
	})
	if !errors.Is(err, result) {
		t.Errorf("PutBack(%s) = %v, want %v", volume, err, result)
	}
	return found
}

func TestAVolumeIsPutBackOnceForAllContainers(t *testing.T) {
	t.Parallel()
	main := newContainer(t)
	other, err := At(filepath.Dir(filepath.Dir(main.Dir())), "uid-1", "other")
	if err != nil {
		t.Fatal(err)
	}
	keep(t, main, "data", "files")
	keep(t, main, ephemeral.SharedMemory, "memory")
	failed := errors.New("the disk is full")
	for _, step := range []struct {
		what   string
		of     *Container
		volume string
		result error
		want   string
	}{
		{"a try that fails", main, "data", failed, "files"},
		{"it is repeated", other, "data", nil, "files"},
		{"it is done", main, "data", nil, ""},
		{"/dev/shm is another one", main, ephemeral.SharedMemory, nil, "memory"},
	} {
		if got := putBack(t, step.of, step.volume, step.result); got != step.want {
			t.Errorf("%s: %q is put back, want %q", step.what, got, step.want)
		}
	}
	if err := main.RenewVolume("data"); err != nil {
		t.Fatal(err)
	}
	if got := putBack(t, main, "data", nil); got != "files" {
		t.Errorf("once more: %q is put back", got)
	}
	if err := main.RemoveVolumes(); err != nil {
		t.Fatal(err)
	}
	if err := main.PutBack("data", nil); err == nil {
		t.Error("files that are gone were put back")
	}
}
