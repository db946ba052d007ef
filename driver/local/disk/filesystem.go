package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// The supported filesystems.
const (
	Ext4 = "ext4"
	XFS  = "xfs"
)

// MinSize returns the smallest image, in bytes, for a filesystem. mkfs.xfs rejects
// less than 300 MiB. ext4 has a journal from 8 MiB on with its usual block size, and
// twice that leaves room for data.
func MinSize(fsType string) int64 {
	switch fsType {
	case XFS:
		return 300 << 20
	case Ext4:
		return 16 << 20
	default:
		return 0
	}
}

const (
	xfsMagic     = "XFSB"
	extMagic     = "\x53\xef"
	extMagicAt   = 0x438
	signatureEnd = extMagicAt + int64(len(extMagic))
)

// Probe returns the type of the filesystem on image, "" if it has none of the
// supported ones.
func Probe(image string) (string, error) {
	f, err := os.Open(image)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, signatureEnd)
	if _, err := io.ReadFull(f, head); errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("reading %s: %w", image, err)
	}
	switch {
	case bytes.HasPrefix(head, []byte(xfsMagic)):
		return XFS, nil
	case bytes.HasPrefix(head[extMagicAt:], []byte(extMagic)):
		return Ext4, nil
	default:
		return "", nil
	}
}

// IsBlank reports whether image contains only zeros. It does not read holes.
func IsBlank(image string) (bool, error) {
	f, err := os.Open(image)
	if err != nil {
		return false, err
	}
	defer f.Close()
	buffer := make([]byte, 1<<20)
	for at := int64(0); ; {
		start, end, err := nextExtent(f, at)
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("looking for data in %s: %w", image, err)
		}
		for at = start; at < end; {
			n, err := f.ReadAt(buffer[:min(int64(len(buffer)), end-at)], at)
			if n == 0 && err != nil {
				return false, fmt.Errorf("looking for data in %s: %w", image, err)
			}
			if len(bytes.Trim(buffer[:n], "\x00")) > 0 {
				return false, nil
			}
			at += int64(n)
		}
	}
}

// Format creates a filesystem on image, which must be all zeros and not in use. It
// works on the file, so it needs neither a device nor root.
func Format(fsType, image string) error {
	var err error
	switch fsType {
	case Ext4:
		// The image reads as zeros, so zeroing the tables now (or later, see Mount)
		// would only make it less sparse. All sizes have the same block size, because
		// a small volume may grow large. No blocks are reserved for root.
		_, err = run("mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0",
			"-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", image)
	case XFS:
		_, err = run("mkfs.xfs", "-q", "-f", "-K", image)
	default:
		err = fmt.Errorf("filesystem %q is not known", fsType)
	}
	if err != nil {
		return fmt.Errorf("making %s on %s: %w", fsType, image, err)
	}
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Check repairs, before a mount, what can be repaired without a decision. XFS needs no
// check: it replays its log when it is mounted.
func Check(fsType, image string) error {
	if fsType != Ext4 {
		return nil
	}
	// 1 means that errors were corrected.
	if exit, err := run("e2fsck", "-p", image); err != nil && exit != 1 {
		return fmt.Errorf("checking %s (run \"e2fsck -f %s\" by hand, with the volume in no use): %w", image, image, err)
	}
	return nil
}

// Mount mounts the device's filesystem at target with flags as in mount(8) -o. Errors
// omit the flags, which may be secret (CSI spec,
// VolumeCapability.MountVolume.mount_flags).
func Mount(fsType string, device Device, target string, flags []string) error {
	options := append([]string{}, flags...)
	switch fsType {
	case XFS:
		// A clone or a restored snapshot has its source's UUID, and XFS rejects a
		// second mount with the same UUID.
		options = append(options, "nouuid")
	case Ext4:
		// Inode tables already read as zeros; writing the zeros would fill the image.
		options = append(options, "noinit_itable")
	}
	if _, err := run("mount", "-t", fsType, "-o", strings.Join(options, ","), device.Path, target); err != nil {
		return fmt.Errorf("mounting %s as %s at %s: %w", device.Path, fsType, target, err)
	}
	return nil
}
