package kube

import (
	"fmt"
	"math"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Bytes returns a size in bytes, rounded up. It is an error if the size is negative, or more
// than CSI can express: [resource.Quantity.Value] returns 0 or another wrong number then, so
// that 10E would be no size at all.
func Bytes(size resource.Quantity) (int64, error) {
	switch {
	case size.Sign() < 0:
		return 0, fmt.Errorf("%s is negative", size.String())
	case size.CmpInt64(math.MaxInt64) > 0:
		return 0, fmt.Errorf("%s is too much: the most is %d bytes, just below 8Ei", size.String(), int64(math.MaxInt64))
	}
	return size.Value(), nil
}

// BytesAtMost returns a size in bytes, rounded up, and the largest int64 for a larger one. It is
// for comparisons only.
func BytesAtMost(size resource.Quantity) int64 {
	if size.CmpInt64(math.MaxInt64) > 0 {
		return math.MaxInt64
	}
	return size.Value()
}
