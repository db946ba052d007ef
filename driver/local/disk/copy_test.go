package disk_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/driver/local/disk"
	"github.com/holdfast-io/holdfast/driver/local/disk/disktest"
)

const mib = 1 << 20

// sparse creates a file of 64 MiB with 1 MiB of data at its start and 1 MiB in its
// middle.
func sparse(t *testing.T, path string) (content []byte) {
	t.Helper()
	content = make([]byte, 64*mib)
	for _, at := range []int{0, 32 * mib} {
		copy(content[at:], bytes.Repeat([]byte("holdfast"), mib/8))
	}
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for _, at := range []int64{0, 32 * mib} {
		_, err := f.WriteAt(content[at:at+mib], at)
		must(t, err)
	}
	must(t, f.Truncate(int64(len(content))))
	must(t, f.Sync())
	return content
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func used(t *testing.T, path string) int64 {
	t.Helper()
	fd, err := os.Open(path)
	must(t, err)
	defer fd.Close()
	must(t, unix.Syncfs(int(fd.Fd())))
	u, err := disk.UsageOf(path)
	must(t, err)
	return u.Bytes - u.BytesFree
}

func TestCopy(t *testing.T) {
	tests := map[string]struct {
		fsType     string
		size       int64
		wantShared bool
	}{
		"reflinks are used if supported":  {disk.XFS, 512 * mib, true},
		"holes are kept without reflinks": {disk.Ext4, 256 * mib, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := disktest.Filesystem(t, tt.fsType, tt.size)
			from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
			content := sparse(t, from)
			before := used(t, dir)
			shared, err := disk.Copy(to, from, true)
			must(t, err)
			if shared != tt.wantShared {
				t.Errorf("shared = %t", shared)
			}
			added, bound := used(t, dir)-before, int64(3*mib)
			if tt.wantShared {
				bound = mib // less than the data: some metadata
			}
			if added > bound {
				t.Errorf("the copy took %d bytes of the disk", added)
			}
			// Later writes to the source must not reach the copy.
			must(t, os.WriteFile(from, bytes.Repeat([]byte("x"), mib), 0o600))
			got, err := os.ReadFile(to)
			must(t, err)
			if !bytes.Equal(got, content) {
				t.Error("the copy differs from what was copied")
			}
		})
	}
}

func TestCopyOfAChangingSourceNeedsReflinks(t *testing.T) {
	tests := map[string]struct {
		fsType string
		size   int64
		want   error
	}{
		"with reflinks":    {disk.XFS, 512 * mib, nil},
		"without reflinks": {disk.Ext4, 256 * mib, disk.ErrSourceChanging},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := disktest.Filesystem(t, tt.fsType, tt.size)
			sparse(t, filepath.Join(dir, "from"))
			if _, err := disk.Copy(filepath.Join(dir, "to"), filepath.Join(dir, "from"), false); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestProbeAndBlank(t *testing.T) {
	write := func(at int64, data string) func(t *testing.T, image string) {
		return func(t *testing.T, image string) {
			f, err := os.OpenFile(image, os.O_WRONLY, 0)
			must(t, err)
			defer f.Close()
			_, err = f.WriteAt([]byte(data), at)
			must(t, err)
		}
	}
	tests := map[string]struct {
		prepare   func(t *testing.T, image string)
		wantType  string
		wantBlank bool
	}{
		"holes are blank":                             {func(*testing.T, string) {}, "", true},
		"written zeros are blank":                     {write(5*mib, string(make([]byte, 3*mib))), "", true},
		"one byte at the end is data":                 {write(400*mib-1, "x"), "", false},
		"one byte after zeros is data":                {write(2*mib, string(make([]byte, mib))+"x"), "", false},
		"ext4 is found":                               {func(t *testing.T, image string) { must(t, disk.Format(disk.Ext4, image)) }, disk.Ext4, false},
		"xfs is found":                                {func(t *testing.T, image string) { must(t, disk.Format(disk.XFS, image)) }, disk.XFS, false},
		"an image too short for a signature has none": {func(t *testing.T, image string) { must(t, os.Truncate(image, 100)) }, "", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			image := filepath.Join(t.TempDir(), "image")
			must(t, os.WriteFile(image, nil, 0o600))
			must(t, os.Truncate(image, 400*mib))
			tt.prepare(t, image)
			gotType, err := disk.Probe(image)
			must(t, err)
			gotBlank, err := disk.IsBlank(image)
			must(t, err)
			if gotType != tt.wantType || gotBlank != tt.wantBlank {
				t.Errorf("Probe = %q, IsBlank = %t; want %q, %t", gotType, gotBlank, tt.wantType, tt.wantBlank)
			}
		})
	}
}

func TestFormatMinSize(t *testing.T) {
	for _, fsType := range []string{disk.Ext4, disk.XFS} {
		t.Run(fsType, func(t *testing.T) {
			t.Parallel()
			dir := disktest.Filesystem(t, fsType, disk.MinSize(fsType))
			must(t, os.WriteFile(filepath.Join(dir, "file"), make([]byte, 4*mib), 0o600))
		})
	}
}

func TestAFilesystemStaysSparse(t *testing.T) {
	dir := disktest.Dir(t)
	image := filepath.Join(dir, "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 100<<30))
	must(t, disk.Format(disk.Ext4, image))
	n, err := disk.Allocated(image)
	must(t, err)
	if n > 64*mib {
		t.Errorf("an empty ext4 of 100 GiB occupies %d MiB", n/mib)
	}
}
