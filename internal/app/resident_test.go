package app

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUnchangedMappings(t *testing.T) {
	const smaps = `00400000-00500000 r-xp 00000000 08:01 17 /bin/holdfast
Rss:                 900 kB
Anonymous:             0 kB
00500000-00600000 r--p 00100000 08:01 17 /bin/holdfast
Anonymous:             0 kB
00600000-00700000 r--p 00200000 08:01 17 /bin/holdfast
Anonymous:             4 kB
00700000-00800000 rw-p 00300000 08:01 17 /bin/holdfast
Anonymous:             0 kB
00800000-00900000 r--s 00300000 08:01 17 /bin/holdfast
Anonymous:             0 kB
00900000-00a00000 r-xp 00000000 08:01 18 /lib/other
Anonymous:             0 kB
00a00000-00b00000 r--p 00000000 00:00 0
Anonymous:             0 kB
`
	want := []mapping{{0x400000, 0x500000}, {0x500000, 0x600000}}
	if got := unchangedMappings(smaps, "/bin/holdfast"); !slices.Equal(got, want) {
		t.Errorf("got %x, want %x: not what was changed, is writable, shared, or of something else", got, want)
	}
}

// residentProgram returns how many kB of unchanged mappings of the program are resident.
func residentProgram(t *testing.T) int {
	t.Helper()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	sum, ofProgram := 0, false
	for line := range strings.Lines(string(text)) {
		var start, end uintptr
		var permissions string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &start, &end, &permissions); n == 3 {
			ofProgram = strings.HasSuffix(line, " "+program+"\n") && strings.HasPrefix(permissions, "r-")
		}
		var size int
		if n, _ := fmt.Sscanf(line, "Rss: %d kB", &size); n == 1 && ofProgram {
			sum += size
		}
	}
	return sum
}

func TestReleaseProgramPages(t *testing.T) {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range unchangedMappings(string(maps), program) {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_POPULATE_READ); errno != 0 {
			t.Fatal(errno)
		}
	}
	before := residentProgram(t)
	if err := releaseProgramPages(); err != nil {
		t.Fatal(err)
	}
	if after := residentProgram(t); after > before/2 {
		t.Errorf("%d kB of the program are resident, of %d before", after, before)
	}
}
