package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// CanGrowMounted reports whether a mounted filesystem can be grown. For ext4 the
// kernel requires CAP_SYS_RESOURCE, which some sandboxes withhold even from root.
func CanGrowMounted(fsType string) bool {
	if fsType != Ext4 {
		return true
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return true // then the attempt fails
	}
	return sets[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// GrowMounted grows the filesystem that is mounted from device at mounted to the size
// of the device. It does nothing if it already has that size.
func GrowMounted(fsType string, device Device, mounted string) error {
	var err error
	switch fsType {
	case Ext4:
		_, err = run("resize2fs", device.Path)
	case XFS:
		_, err = run("xfs_growfs", "-d", mounted)
	default:
		err = fmt.Errorf("filesystem %q is not known", fsType)
	}
	if err != nil {
		return fmt.Errorf("growing the %s at %s: %w", fsType, mounted, err)
	}
	return nil
}

// GrowUnmounted grows the filesystem on image to the size of the image. It is for
// filesystems for which CanGrowMounted is false: growing a mounted filesystem is
// journaled, this is not.
func GrowUnmounted(fsType, image string) error {
	if fsType != Ext4 {
		return nil
	}
	if full, err := Fills(fsType, image); err != nil || full {
		return err
	}
	// resize2fs requires a full check first.
	if exit, err := run("e2fsck", "-f", "-p", image); err != nil && exit != 1 {
		return fmt.Errorf("checking %s before it grows: %w", image, err)
	}
	if _, err := run("resize2fs", image); err != nil {
		return fmt.Errorf("growing the %s on %s: %w", fsType, image, err)
	}
	return nil
}

// Fills reports whether the ext4 on path, an image or a device, already has the size
// of path. For other filesystems it returns false.
func Fills(fsType, path string) (bool, error) {
	if fsType != Ext4 {
		return false, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	size, blockSize, err := ext4Size(f)
	if err != nil {
		return false, fmt.Errorf("reading the size of the %s on %s: %w", fsType, path, err)
	}
	end, err := f.Seek(0, io.SeekEnd)
	return end-size < blockSize, err
}

// Offsets of the size fields in the ext4 superblock.
const (
	extSuperblock   = 1024
	extBlocksLow    = 0x4
	extLogBlockSize = 0x18
	extIncompat     = 0x60
	extBlocksHigh   = 0x150
	extIncompat64   = 0x80
)

// ext4Size returns the size of an ext4 and of its blocks, in bytes.
func ext4Size(f io.ReaderAt) (size, blockSize int64, err error) {
	super := make([]byte, 1024)
	if _, err := f.ReadAt(super, extSuperblock); err != nil {
		return 0, 0, err
	}
	field := func(at int) int64 { return int64(binary.LittleEndian.Uint32(super[at:])) }
	if field(extLogBlockSize) > 6 { // 64 KiB is the largest block
		return 0, 0, errors.New("the superblock is damaged")
	}
	blockSize = 1024 << field(extLogBlockSize)
	blocks := field(extBlocksLow)
	if field(extIncompat)&extIncompat64 != 0 {
		blocks |= field(extBlocksHigh) << 32
	}
	return blocks * blockSize, blockSize, nil
}
