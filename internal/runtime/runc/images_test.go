package runc

import (
	"strings"
	"testing"
)

func TestWhyNotInMemory(t *testing.T) {
	const gib = 1 << 30
	tests := map[string]struct {
		needed, used, permitted, available int64
		says                               string
	}{
		"there is enough":                                  {gib, 0, 2 * gib, 4 * gib, ""},
		"nothing is permitted":                             {gib, 0, 0, 4 * gib, "does not permit"},
		"more is needed than is permitted":                 {3 * gib, 0, 2 * gib, 8 * gib, "of the 2048 MiB that checkpoints of the node may take, 0 are in use"},
		"others have used what is permitted":               {gib, gib + 1, 2 * gib, 8 * gib, "1024 are in use"},
		"the node has too little left after it":            {gib, 0, 2 * gib, gib + leaveFree - 1, "the node has 1279 MiB available"},
		"the node has just enough left for everybody else": {gib, 0, 2 * gib, gib + leaveFree, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := whyNotInMemory(tt.needed, tt.used, tt.permitted, tt.available)
			if (got == "") != (tt.says == "") || !strings.Contains(got, tt.says) {
				t.Errorf("it says %q, want %q", got, tt.says)
			}
		})
	}
}
