package runc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// pageSize is the unit of CRIU's images.
var pageSize = uint64(os.Getpagesize())

// A memoryCopy is a copy of the private anonymous memory of a container's processes, in a
// file of a tmpfs. It is made while the container is frozen.
type memoryCopy struct {
	file   *os.File
	memory []byte // the file, mapped; its pages exist before the container is frozen
	used   int64
	// ranges are what was copied of each process, ascending, by its number in the process
	// namespace of the container.
	ranges map[int][]copiedRange
}

// A copiedRange is a range of addresses and its place in the file.
type copiedRange struct {
	start, end uint64
	offset     int64
}

// errMemoryGrown means that the container has more memory than when the copy was prepared.
var errMemoryGrown = errors.New("the memory of the container has grown while its checkpoint was prepared")

// newMemoryCopy makes a file of a size whose pages exist already: to make them takes longer
// than to fill them.
func newMemoryCopy(name string, size int64) (*memoryCopy, error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("creating a file for the memory: %w", err)
	}
	if err := unix.Fallocate(int(file.Fd()), 0, 0, size); err != nil {
		return nil, errors.Join(fmt.Errorf("allocating %d MiB for the memory: %w", size>>20, err), file.Close())
	}
	memory, err := unix.Mmap(int(file.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mapping a file for the memory: %w", err), file.Close())
	}
	if err := touch(memory); err != nil {
		return nil, errors.Join(err, unix.Munmap(memory), file.Close())
	}
	return &memoryCopy{file: file, memory: memory, ranges: map[int][]copiedRange{}}, nil
}

// touch has the kernel write all of a mapping. A tmpfs clears a page, and a virtual machine
// gets it, only when it is written; and there are virtual machines on which the kernel's
// first write into a mapping costs ten times as much as the next one, also if the program
// itself has written there.
func touch(memory []byte) error {
	zeros, err := os.Open("/dev/zero")
	if err != nil {
		return fmt.Errorf("opening /dev/zero: %w", err)
	}
	defer zeros.Close()
	if _, err := io.ReadFull(zeros, memory); err != nil {
		return fmt.Errorf("filling a file for the memory: %w", err)
	}
	return nil
}

// close ends the copying. What was allocated and not used is given back.
func (m *memoryCopy) close() error {
	return errors.Join(unix.Munmap(m.memory), m.file.Truncate(m.used), m.file.Close())
}

// An area is one mapping of a process that may have pages that CRIU dumps lazily.
type area struct {
	start, end uint64
	readable   bool
	executable bool
}

// lazyAreas returns the private anonymous mappings of a /proc/PID/maps.
func lazyAreas(maps string) ([]area, error) {
	const permissions, inode, name = 1, 4, 5
	var areas []area
	for line := range strings.Lines(maps) {
		fields := strings.Fields(line)
		if len(fields) <= inode {
			return nil, fmt.Errorf("the mapping %q has too few fields", line)
		}
		if fields[permissions][3] != 'p' || fields[inode] != "0" {
			continue
		}
		if len(fields) > name && (strings.HasPrefix(fields[name], "[v") || fields[name] == "[uprobes]") {
			continue // of the kernel: [vdso], [vvar], [vvar_vclock], [vsyscall]
		}
		first, last, _ := strings.Cut(fields[0], "-")
		start, startErr := strconv.ParseUint(first, 16, 64)
		end, endErr := strconv.ParseUint(last, 16, 64)
		if err := errors.Join(startErr, endErr); err != nil {
			return nil, fmt.Errorf("reading the mapping %q: %w", line, err)
		}
		areas = append(areas, area{start: start, end: end,
			readable: fields[permissions][0] == 'r', executable: fields[permissions][2] == 'x'})
	}
	return areas, nil
}

// A processCopy copies the memory of one process.
type processCopy struct {
	copy   *memoryCopy
	pid    int
	number int // in the process namespace of the container
	areas  []area
	mem    *os.File // /proc/PID/mem
	pages  *os.File // /proc/PID/pagemap
}

// openProcesses prepares to copy the memory of the frozen processes of a container.
func openProcesses(m *memoryCopy, t *target) ([]*processCopy, error) {
	pids, err := t.cgroup.Processes()
	if err != nil {
		return nil, fmt.Errorf("listing the processes of container %s: %w", t.Name, err)
	}
	depth, err := namespaceNumbers(t.pid)
	if err != nil {
		return nil, err
	}
	var all []*processCopy
	for _, pid := range pids {
		numbers, err := namespaceNumbers(pid)
		if err != nil {
			return all, err
		}
		if len(numbers) < len(depth) {
			return all, fmt.Errorf("process %d is in another process namespace than the container", pid)
		}
		p, err := openProcess(m, pid)
		if err != nil {
			return all, err
		}
		p.number = numbers[len(depth)-1]
		all = append(all, p)
	}
	return all, nil
}

// namespaceNumbers returns the numbers of a process in its process namespaces, outermost
// first.
func namespaceNumbers(pid int) ([]int, error) {
	text, err := statusValue(pid, "NSpid")
	if err != nil {
		return nil, err
	}
	var numbers []int
	for field := range strings.FieldsSeq(text) {
		n, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("reading the numbers of process %d: %w", pid, err)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

func openProcess(m *memoryCopy, pid int) (*processCopy, error) {
	maps, err := os.ReadFile(procFile(pid, "maps"))
	if err != nil {
		return nil, fmt.Errorf("reading the mappings of process %d: %w", pid, err)
	}
	areas, err := lazyAreas(string(maps))
	if err != nil {
		return nil, err
	}
	mem, err := os.Open(procFile(pid, "mem"))
	if err != nil {
		return nil, fmt.Errorf("opening the memory of process %d: %w", pid, err)
	}
	pages, err := os.Open(procFile(pid, "pagemap"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the page map of process %d: %w", pid, err), mem.Close())
	}
	return &processCopy{copy: m, pid: pid, areas: areas, mem: mem, pages: pages}, nil
}

func (p *processCopy) close() {
	p.mem.Close()
	p.pages.Close()
}

// run copies the areas that are executable, or those that are not. CRIU writes some
// instructions into an executable area of a process for as long as it works there, so such
// areas are copied before.
func (p *processCopy) run(executable bool) error {
	for _, a := range p.areas {
		if a.executable != executable {
			continue
		}
		if err := scanPages(p.pages, a, func(regions []pageRegion) error { return p.copyRegions(a, regions) }); err != nil {
			return fmt.Errorf("copying the memory of process %d at %#x: %w", p.pid, a.start, err)
		}
	}
	return nil
}

// copyRegions copies pages of one area.
func (p *processCopy) copyRegions(a area, regions []pageRegion) error {
	var size int64
	for _, region := range regions {
		size += int64(region.end - region.start)
	}
	m := p.copy
	if m.used+size > int64(len(m.memory)) {
		return errMemoryGrown
	}
	to := m.memory[m.used : m.used+size]
	for _, region := range regions {
		m.ranges[p.number] = append(m.ranges[p.number], copiedRange{start: region.start, end: region.end, offset: m.used})
		m.used += int64(region.end - region.start)
	}
	if !a.readable {
		return p.readProtected(to, regions)
	}
	return p.read(to, regions)
}

// read reads pages of an area that the process itself may read.
func (p *processCopy) read(to []byte, regions []pageRegion) error {
	for len(regions) > 0 {
		n := min(len(regions), maxVectors)
		var size int
		remote := make([]unix.RemoteIovec, n)
		for i, region := range regions[:n] {
			remote[i] = unix.RemoteIovec{Base: uintptr(region.start), Len: int(region.end - region.start)}
			size += remote[i].Len
		}
		local := []unix.Iovec{{Base: &to[0]}}
		local[0].SetLen(size)
		read, err := unix.ProcessVMReadv(p.pid, local, remote, 0)
		if err != nil {
			return fmt.Errorf("reading memory: %w", err)
		}
		if read != size {
			// One call reads at most 2 GiB, and stops at a page that it cannot read.
			return p.readProtected(to[:size], regions[:n])
		}
		to, regions = to[size:], regions[n:]
	}
	return nil
}

// readProtected reads pages whatever their protection.
func (p *processCopy) readProtected(to []byte, regions []pageRegion) error {
	for _, region := range regions {
		size := int(region.end - region.start)
		if n, err := p.mem.ReadAt(to[:size], int64(region.start)); n < size {
			return fmt.Errorf("reading memory: %w", err)
		}
		to = to[size:]
	}
	return nil
}

// parts returns where a range of addresses of a process is in the copy.
func (m *memoryCopy) parts(process int, start, end uint64, path string) ([]part, error) {
	ranges := m.ranges[process]
	var parts []part
	for start < end {
		i, found := slices.BinarySearchFunc(ranges, start, func(r copiedRange, address uint64) int {
			switch {
			case r.end <= address:
				return -1
			case r.start > address:
				return 1
			}
			return 0
		})
		if !found {
			return nil, fmt.Errorf("the page at %#x of process %d was not copied", start, process)
		}
		r := ranges[i]
		length := min(end, r.end) - start
		parts = append(parts, part{Path: path, Offset: r.offset + int64(start-r.start), Length: int64(length)})
		start += length
	}
	return parts, nil
}

// sort puts the ranges of each process into the order of their addresses.
func (m *memoryCopy) sort() {
	for _, ranges := range m.ranges {
		slices.SortFunc(ranges, func(a, b copiedRange) int {
			if a.start < b.start {
				return -1
			}
			return 1
		})
	}
}

// copiedFile is the file of a memoryCopy.
func copiedFile(dir string) string { return filepath.Join(dir, "copied") }
