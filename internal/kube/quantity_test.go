package kube

import (
	"math"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
)

func TestBytes(t *testing.T) {
	tests := map[string]struct {
		size    string
		want    int64
		invalid bool
	}{
		"a whole number":                         {"3Gi", 3 << 30, false},
		"a part of a byte is rounded up":         {"1.5", 2, false},
		"nothing":                                {"0", 0, false},
		"a negative size":                        {"-1", 0, true},
		"the largest size":                       {"9223372036854775807", math.MaxInt64, false},
		"a byte more, which would be negative":   {"9223372036854775808", math.MaxInt64, true},
		"a part of a byte less is rounded up":    {"9223372036854775806.5", math.MaxInt64, false},
		"ten exabytes, which would be nothing":   {"10E", math.MaxInt64, true},
		"twenty exabytes":                        {"20E", math.MaxInt64, true},
		"just too much, in petabytes":            {"9.3E", math.MaxInt64, true},
		"an exponent":                            {"1e30", math.MaxInt64, true},
		"digits that would be another large one": {"99999999999999999999", math.MaxInt64, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Bytes(resource.MustParse(tt.size))
			if (err != nil) != tt.invalid || err == nil && got != tt.want {
				t.Errorf("got %d, %v", got, err)
			}
			if most := BytesAtMost(resource.MustParse(tt.size)); tt.want != 0 && most != tt.want {
				t.Errorf("compared as %d, want %d", most, tt.want)
			}
		})
	}
}
