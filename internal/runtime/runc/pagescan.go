package runc

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxVectors is the most that process_vm_readv takes at once.
	maxVectors = 1024
	// maxRegion is the largest region that is read at once, in bytes: so large that calls do
	// not count, so small that a processor's own cache holds it.
	maxRegion = 256 << 10
)

// Of linux/fs.h.
const (
	pagemapScan   = 0xc0606610
	pageIsFile    = 1 << 2
	pageIsPresent = 1 << 3
	pageIsSwapped = 1 << 4
	pageIsZero    = 1 << 5
)

// A pageRegion is struct page_region of linux/fs.h.
type pageRegion struct {
	start, end, categories uint64
}

// size is in bytes.
func (r pageRegion) size() int64 { return int64(r.end - r.start) }

// A scanArgument is struct pm_scan_arg of linux/fs.h.
type scanArgument struct {
	size, flags                                            uint64
	start, end, walkEnd                                    uint64
	vec, vecLen, maxPages                                  uint64
	categoryInverted, categoryMask, anyOfMask, returnMasks uint64
}

// scanPages calls found with the pages of an area that CRIU dumps: those that are in RAM
// or swapped out, and are neither of a file nor the kernel's page of zeros. CRIU asks the
// kernel in the same way.
func scanPages(pagemap *os.File, a area, found func([]pageRegion) error) error {
	regions := make([]pageRegion, maxVectors)
	for start := a.start; start < a.end; {
		argument := scanArgument{
			start: start, end: a.end,
			vec: uint64(uintptr(unsafe.Pointer(&regions[0]))), vecLen: uint64(len(regions)), //nolint:gosec // G103: the kernel's interface
			categoryInverted: pageIsFile | pageIsZero, categoryMask: pageIsFile | pageIsZero,
			anyOfMask: pageIsPresent | pageIsSwapped, returnMasks: pageIsPresent,
		}
		argument.size = uint64(unsafe.Sizeof(argument))
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, pagemap.Fd(), pagemapScan, uintptr(unsafe.Pointer(&argument))) //nolint:gosec // G103: the kernel's interface
		if errno != 0 {
			return fmt.Errorf("asking the kernel for the pages: %w", errno)
		}
		if err := found(split(regions[:n])); err != nil {
			return err
		}
		start = argument.walkEnd
	}
	return nil
}

// split cuts regions into pieces of at most maxRegion.
func split(regions []pageRegion) []pageRegion {
	var pieces []pageRegion
	for _, region := range regions {
		for region.end-region.start > maxRegion {
			pieces = append(pieces, pageRegion{start: region.start, end: region.start + maxRegion})
			region.start += maxRegion
		}
		pieces = append(pieces, region)
	}
	return pieces
}

// canScanPages reports whether the kernel has PAGEMAP_SCAN (6.7 and newer).
func canScanPages() bool {
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return false
	}
	defer pagemap.Close()
	return scanPages(pagemap, area{start: 0x10000, end: 0x10000 + pageSize}, func([]pageRegion) error { return nil }) == nil
}
