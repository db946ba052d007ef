package volume

import (
	"fmt"
	"math"

	"github.com/holdfast-io/holdfast/driver/local/disk"
)

const (
	// Step is the size granularity in bytes: sizes are rounded up to it.
	Step = 1 << 20
	// DefaultSize is the size of a volume for which none is requested, in bytes.
	DefaultSize = 1 << 30
)

// Range is a requested size in bytes (CSI spec, CapacityRange): at least Required, at
// most Limit, 0 for unspecified.
type Range struct {
	Required, Limit int64
}

// choose returns the smallest size that satisfies r and is not less than floor.
func (r Range) choose(floor int64) (int64, error) {
	switch {
	case r.Required < 0 || r.Limit < 0:
		return 0, fmt.Errorf("%w: sizes cannot be negative", ErrInvalid)
	case r.Limit > 0 && r.Required > r.Limit:
		return 0, fmt.Errorf("%w: %s are required and %s is the limit", ErrInvalid, formatSize(r.Required), formatSize(r.Limit))
	case r.Required > math.MaxInt64-Step:
		return 0, fmt.Errorf("%w: %d bytes are more than a file can hold", ErrOutOfRange, r.Required)
	}
	want := r.Required
	if want == 0 {
		want = DefaultSize
		if r.Limit > 0 {
			want = min(want, r.Limit/Step*Step)
		}
	}
	size := max(roundUp(want), roundUp(floor), Step)
	if r.Limit > 0 && size > r.Limit {
		return 0, fmt.Errorf("%w: the limit is %s (%d bytes) and the smallest volume that fits the request has %s (sizes are multiples of %s)",
			ErrOutOfRange, formatSize(r.Limit), r.Limit, formatSize(size), formatSize(Step))
	}
	return size, nil
}

// floor is the minimum size of a volume with this access type and filesystem.
func (s Spec) floor() int64 {
	if !s.Access.Mount {
		return Step
	}
	return disk.MinSize(s.FSType)
}

// contains reports whether size satisfies r.
func (r Range) contains(size int64) bool {
	return size >= r.Required && (r.Limit == 0 || size <= r.Limit)
}

func roundUp(size int64) int64 {
	return (size + Step - 1) / Step * Step
}

// formatSize formats a size with a binary unit.
func formatSize(size int64) string {
	unit, names := float64(size), []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for unit >= 1024 && len(names) > 1 {
		unit, names = unit/1024, names[1:]
	}
	return fmt.Sprintf("%.4g %s", unit, names[0])
}
