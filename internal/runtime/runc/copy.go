package runc

import (
	"errors"
	"fmt"
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
//
// It goes through a small buffer, into a file that is not mapped. That the processor's cache
// holds the buffer makes the second copy cheap, while there are virtual machines on which
// the first write into a page through a mapping costs more than to copy it ten times.
type memoryCopy struct {
	file   *os.File
	size   int64 // of the file, whose pages exist before the container is frozen
	used   int64
	buffer []byte
	// ranges are what was copied of each process, ascending, by its number in the process
	// namespace of the container.
	ranges map[int][]copiedRange
}

// A copiedRange is a range of addresses and its place in the file.
type copiedRange struct {
	start, end uint64
	offset     int64
}

// nextOffset is the place of what follows.
func (r copiedRange) nextOffset() int64 { return r.offset + int64(r.end-r.start) }

// errMemoryGrown means that the container has more memory than when the copy was prepared.
var errMemoryGrown = errors.New("the memory of the container has grown while its checkpoint was prepared")

// newMemoryCopy makes a file of a size whose pages exist already.
func newMemoryCopy(name string, size int64) (*memoryCopy, error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("creating a file for the memory: %w", err)
	}
	m := &memoryCopy{file: file, size: size, buffer: make([]byte, maxRegion), ranges: map[int][]copiedRange{}}
	if err := m.allocate(); err != nil {
		return nil, errors.Join(fmt.Errorf("allocating %d MiB for the memory: %w", size>>20, err), file.Close())
	}
	return m, nil
}

// allocate makes the pages of the file. The first write into a page takes several times as
// long as the next one, so all of them are written to while the container runs.
func (m *memoryCopy) allocate() error {
	// A tmpfs gives a file huge pages up to its size only.
	if err := m.file.Truncate(m.size); err != nil {
		return err
	}
	if err := unix.Fallocate(int(m.file.Fd()), 0, 0, m.size); err != nil {
		return err
	}
	for at := int64(0); at < m.size; at += int64(len(m.buffer)) {
		if _, err := m.file.WriteAt(m.buffer[:min(int64(len(m.buffer)), m.size-at)], at); err != nil {
			return err
		}
	}
	return nil
}

// add writes what the buffer has of these regions of a process.
func (m *memoryCopy) add(process int, regions []pageRegion, data []byte) error {
	if m.used+int64(len(data)) > m.size {
		return errMemoryGrown
	}
	if _, err := m.file.WriteAt(data, m.used); err != nil {
		return fmt.Errorf("writing the copy: %w", err)
	}
	ranges := m.ranges[process]
	for _, region := range regions {
		if n := len(ranges); n > 0 && ranges[n-1].end == region.start && ranges[n-1].nextOffset() == m.used {
			ranges[n-1].end = region.end
		} else {
			ranges = append(ranges, copiedRange{start: region.start, end: region.end, offset: m.used})
		}
		m.used += region.size()
	}
	m.ranges[process] = ranges
	return nil
}

// close ends the copying. What was allocated and not used is given back.
func (m *memoryCopy) close() error {
	return errors.Join(m.file.Truncate(m.used), m.file.Close())
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
	read := p.read
	if !a.readable {
		read = p.readProtected
	}
	for len(regions) > 0 {
		n, size := p.copy.fit(regions)
		data := p.copy.buffer[:size]
		if err := read(data, regions[:n]); err != nil {
			return err
		}
		if err := p.copy.add(p.number, regions[:n], data); err != nil {
			return err
		}
		regions = regions[n:]
	}
	return nil
}

// fit returns how many regions fit into the buffer, and their size. Each of them does.
func (m *memoryCopy) fit(regions []pageRegion) (n int, size int64) {
	for n < len(regions) && size+regions[n].size() <= int64(len(m.buffer)) {
		size += regions[n].size()
		n++
	}
	return n, size
}

// read reads pages of an area that the process itself may read.
func (p *processCopy) read(to []byte, regions []pageRegion) error {
	remote := make([]unix.RemoteIovec, len(regions))
	for i, region := range regions {
		remote[i] = unix.RemoteIovec{Base: uintptr(region.start), Len: int(region.size())}
	}
	local := []unix.Iovec{{Base: &to[0]}}
	local[0].SetLen(len(to))
	read, err := unix.ProcessVMReadv(p.pid, local, remote, 0)
	if err != nil {
		return fmt.Errorf("reading memory: %w", err)
	}
	if read != len(to) {
		return p.readProtected(to, regions) // It stops at a page that it cannot read.
	}
	return nil
}

// readProtected reads pages whatever their protection.
func (p *processCopy) readProtected(to []byte, regions []pageRegion) error {
	for _, region := range regions {
		size := int(region.size())
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
