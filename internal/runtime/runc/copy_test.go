package runc

import (
	"errors"
	"os"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// mapPages maps memory of which only the first half is touched.
func mapPages(t *testing.T, pages uint64) (area, []byte) {
	t.Helper()
	memory, err := unix.Mmap(-1, 0, int(pages*pageSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(memory); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Madvise(memory, unix.MADV_NOHUGEPAGE); err != nil {
		t.Fatal(err)
	}
	for i := range memory[:len(memory)/2] {
		memory[i] = byte(i / 7)
	}
	start := uint64(uintptr(unsafe.Pointer(&memory[0])))
	return area{start: start, end: start + pages*pageSize, readable: true}, memory
}

func TestCopyThatIsTooSmall(t *testing.T) {
	m, err := newMemoryCopy(copiedFile(t.TempDir()), int64(10*pageSize))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := mapPages(t, 40)
	p, err := openProcess(m, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	p.areas = []area{a}
	if err := p.run(false); !errors.Is(err, errMemoryGrown) {
		t.Errorf("copying 20 pages into 10: %v", err)
	}
	if err := m.close(); err != nil {
		t.Error(err)
	}
}

func TestLazyAreas(t *testing.T) {
	maps := `00400000-00401000 r-xp 00000000 fe:00 131 /bin/program
00600000-00601000 rw-p 00000000 00:00 0
01000000-01002000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000001000 ---p 00000000 00:00 0
7f0000001000-7f0000002000 rwxp 00000000 00:00 0
7f0000002000-7f0000003000 rw-s 00000000 00:01 22 /dev/zero (deleted)
7f0000003000-7f0000004000 rw-p 00000000 fe:00 131 /bin/program
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]
7ffd00022000-7ffd00024000 r--p 00000000 00:00 0 [vvar]
7ffd00024000-7ffd00026000 r-xp 00000000 00:00 0 [vdso]
`
	got, err := lazyAreas(maps)
	if err != nil {
		t.Fatal(err)
	}
	want := []area{
		{start: 0x600000, end: 0x601000, readable: true},
		{start: 0x1000000, end: 0x1002000, readable: true},
		{start: 0x7f0000000000, end: 0x7f0000001000},
		{start: 0x7f0000001000, end: 0x7f0000002000, readable: true, executable: true},
		{start: 0x7ffd00000000, end: 0x7ffd00021000, readable: true},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(area{})); diff != "" {
		t.Error(diff)
	}
}
