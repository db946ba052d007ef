package provision

import (
	"testing"
)

func TestVolumeNames(t *testing.T) {
	for name, tt := range map[string]struct {
		length int
		want   string
		cuts   bool
	}{
		"the whole UID by default": {-1, "pvc-" + uid, false},
		"a part of it":             {12, "pvc-111111112222", true},
		"a single character":       {1, "pvc-1", true},
		"all of it without dashes": {32, "pvc-11111111222233334444555555555555", false},
	} {
		t.Run(name, func(t *testing.T) {
			o := options()
			o.NameLength = tt.length
			if got := o.volumeName(claim()); got != tt.want || o.truncatesUID() != tt.cuts {
				t.Errorf("got %s, and whether it cuts: %v", got, o.truncatesUID())
			}
		})
	}
}
