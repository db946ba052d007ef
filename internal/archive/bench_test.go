package archive

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

const benchSize = 256 << 20

// BenchmarkAgainstZstd compares a whole archive (zeros left out, zstd, AES-256-GCM, SHA-256)
// with zstd -1 -T2, which only compresses. Both read the same file, in turns, because other
// programs on the machine slow down both. It reports medians: bytes a second of the archive,
// and how many times as fast as zstd it is, by the clock and by processor time.
// HOLDFAST_BENCH_PAGES names a file to use instead of made-up memory, such as a
// checkpoint/pages-1.img of CRIU.
func BenchmarkAgainstZstd(b *testing.B) {
	path := os.Getenv("HOLDFAST_BENCH_PAGES")
	if path == "" {
		path = filepath.Join(b.TempDir(), "pages.img")
		if err := os.WriteFile(path, memoryLike(benchSize), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	var clock, processor, rate, size []float64
	for b.Loop() {
		theirs, output := runZstd(b, path)
		ours, stored := writeFile(b, path)
		clock = append(clock, theirs.clock.Seconds()/ours.clock.Seconds())
		processor = append(processor, theirs.processor.Seconds()/ours.processor.Seconds())
		rate = append(rate, float64(info.Size())/1e6/ours.clock.Seconds())
		size = append(size, float64(stored)/float64(output))
	}
	b.ReportMetric(median(rate), "MB/s")
	b.ReportMetric(median(clock), "×zstd-clock")
	b.ReportMetric(median(processor), "×zstd-cpu")
	b.ReportMetric(median(size), "×zstd-size")
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

type cost struct{ clock, processor time.Duration }

func runZstd(b *testing.B, path string) (cost, int64) {
	b.Helper()
	command := exec.Command("zstd", "-1", "-T2", "-q", "-f", "-o", path+".zst", path)
	start := time.Now()
	if output, err := command.CombinedOutput(); err != nil {
		b.Fatalf("zstd, of the Debian package of this name: %v: %s", err, output)
	}
	spent := cost{time.Since(start), command.ProcessState.UserTime() + command.ProcessState.SystemTime()}
	info, err := os.Stat(path + ".zst")
	if err != nil {
		b.Fatal(err)
	}
	return spent, info.Size()
}

func writeFile(b *testing.B, path string) (cost, int64) {
	b.Helper()
	in, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(path + ".archive")
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	info, err := in.Stat()
	if err != nil {
		b.Fatal(err)
	}
	start, used := time.Now(), processorTime(b)
	w, err := NewWriter(out, testHeader(), WriteOptions{Key: testKey(b, 7)})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Abort()
	if err := w.Add(b.Context(), File{Name: "checkpoint/pages-1.img", Size: info.Size(), Reader: in}); err != nil {
		b.Fatal(err)
	}
	result, err := w.Close()
	if err != nil {
		b.Fatal(err)
	}
	return cost{time.Since(start), processorTime(b) - used}, result.Stored
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// memoryLike returns what the memory of a program may look like: of ten pages two are zeros,
// three have pointers and small numbers, three have text, one is sparse, one is random.
func memoryLike(size int) []byte {
	random := rand.New(rand.NewPCG(1, 2))
	memory := make([]byte, size)
	for n := 0; n < size; n += defaultPageSize {
		page := memory[n : n+defaultPageSize]
		switch random.IntN(10) {
		case 0, 1:
		case 2, 3, 4:
			for i := 0; i < len(page); i += 16 {
				binary.LittleEndian.PutUint64(page[i:], 0xc000000000+uint64(random.IntN(1<<24))<<4)
				binary.LittleEndian.PutUint64(page[i+8:], uint64(random.IntN(64)))
			}
		case 5, 6, 7:
			text := page[:0]
			for len(text) < len(page)-100 {
				text = fmt.Appendf(text, `{"id":%d,"name":"item-%d","price":%d.99,"tags":["new","sale"]}`+"\n", random.IntN(1e6), random.IntN(1000), random.IntN(100))
			}
		case 8:
			for range 16 {
				page[random.IntN(len(page))] = byte(random.Int())
			}
		case 9:
			for i := 0; i < len(page); i += 8 {
				binary.LittleEndian.PutUint64(page[i:], random.Uint64())
			}
		}
	}
	return memory
}

// BenchmarkReadPage measures what one page costs whose frame was not read before.
func BenchmarkReadPage(b *testing.B) {
	memory := memoryLike(32 << 20)
	pages := uint64(len(memory) / defaultPageSize)
	key := testKey(b, 7)
	archive, _ := write(b, WriteOptions{Key: key}, content{"checkpoint/pages-1.img", string(memory)},
		content{"checkpoint/pagemap-1.img", pagemapImage(b, 1, mapping{0, pages, criuPresent})})
	a := mustOpen(b, archive, OpenOptions{Secrets: Secrets{Keys: []Key{*key}}})
	page, random := make([]byte, defaultPageSize), rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		if err := a.ReadPage(AddressSpace{ID: 1}, random.Uint64N(pages)*defaultPageSize, page); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerify measures the read-back of an archive.
func BenchmarkVerify(b *testing.B) {
	memory := memoryLike(64 << 20)
	key := testKey(b, 7)
	archive, _ := write(b, WriteOptions{Key: key}, content{"checkpoint/pages-1.img", string(memory)})
	a := mustOpen(b, archive, OpenOptions{Secrets: Secrets{Keys: []Key{*key}}})
	b.SetBytes(int64(len(memory)))
	for b.Loop() {
		if _, err := a.Verify(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
