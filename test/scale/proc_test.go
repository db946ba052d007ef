package scale

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// memoryUse is the memory of a process, in bytes.
type memoryUse struct {
	resident  int64
	anonymous int64 // part that is not mapped from the program's file
}

func (f memoryUse) String() string {
	return fmt.Sprintf("%d MiB RSS (%d private, %d of the program's file)", f.resident>>20, f.anonymous>>20, (f.resident-f.anonymous)>>20)
}

// memoryOf returns the memory of a process now.
func memoryOf(t *testing.T, pid int) memoryUse {
	t.Helper()
	s := kernelSizes(t, pid, "smaps_rollup")
	return memoryUse{resident: s["Rss"], anonymous: s["Anonymous"]}
}

// peakMemory returns the largest resident size of a process so far, in bytes.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	return kernelSizes(t, pid, "status")["VmHWM"]
}

// kernelSizes reads sizes from a file in /proc, in bytes.
func kernelSizes(t *testing.T, pid int, file string) map[string]int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int64{}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		if n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64); err == nil {
			sizes[name] = n << 10
		}
	}
	if len(sizes) == 0 {
		t.Fatalf("the memory of process %d cannot be read from:\n%s", pid, text)
	}
	return sizes
}

// ticksPerSecond is the unit of CPU times in /proc.
const ticksPerSecond = 100

// cpuTime returns the CPU time of a process so far.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(text, []byte(") ")) // The name may contain any character.
	fields := strings.Fields(string(rest))
	var sum int64
	for _, at := range []int{11, 12} { // utime and stime, proc(5)
		n, err := strconv.ParseInt(fields[at], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return time.Duration(sum) * time.Second / ticksPerSecond
}
