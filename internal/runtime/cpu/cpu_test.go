package cpu

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := map[string]struct{ cpuinfo, want string }{
		"what only the kernel uses does not count": {
			"processor\t: 0\nflags\t\t: fpu vme msr sse2 smep tsc_adjust avx512f amx_tile arch_capabilities\n", "amx_tile avx512f fpu sse2",
		},
		"only what all CPUs have counts": {
			"processor\t: 0\nflags\t\t: fpu avx avx2\n\nprocessor\t: 1\nflags\t\t: fpu avx2 sse\n", "avx2 fpu",
		},
		"CPUs of ARM say what programs can use": {"processor\t: 0\nFeatures\t: fp asimd sve\n", "asimd fp sve"},
		"an architecture that does not tell":    {"processor\t: 0\nmodel\t: x\n", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(parse(tt.cpuinfo), " "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestMissing(t *testing.T) {
	tests := map[string]struct {
		then, now string
		stateOnly bool
		want      string
	}{
		"the same CPU":                            {"avx sse2", "avx sse2", false, ""},
		"a CPU with more features":                {"sse2", "avx sse2", false, ""},
		"a CPU that lacks some":                   {"avx avx512f gfni sse2", "avx sse2", false, "avx512f gfni"},
		"CRIU needs those with registers only":    {"avx avx512f gfni sse2", "avx sse2", true, "avx512f"},
		"CRIU does not need other instructions":   {"avx gfni sse2", "avx sse2", true, ""},
		"what is not known is not missing":        {"avx", "", false, ""},
		"a Checkpoint that does not say anything": {"", "avx", false, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := Missing(strings.Fields(tt.then), strings.Fields(tt.now), tt.stateOnly)
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %v, want %q", got, tt.want)
			}
		})
	}
}

func TestFeaturesOfThisMachine(t *testing.T) {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, feature := range Features() {
		if !slices.Contains(strings.Fields(string(text)), feature) {
			t.Errorf("/proc/cpuinfo does not have %s", feature)
		}
	}
}
