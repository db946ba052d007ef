package restore

import (
	"testing"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

func TestDifferences(t *testing.T) {
	const (
		older   = "the Checkpoint was made with kernel 6.12.48+deb13-amd64, and node b has 6.1.0-40, which is older"
		runtime = "the CRI runtime differs: the Checkpoint was made with containerd://2.1.9, and node b has cri-o://1.34.0"
	)
	tests := map[string]struct {
		change          func(here *v1alpha1.Environment)
		strict, relaxed string
	}{
		"the same node":                 {func(*v1alpha1.Environment) {}, "", ""},
		"a node that does not tell":     {func(here *v1alpha1.Environment) { *here = v1alpha1.Environment{} }, "", ""},
		"a newer CRIU":                  {func(here *v1alpha1.Environment) { here.CRIU = "5.0" }, "", ""},
		"another patch release of CRIU": {func(here *v1alpha1.Environment) { here.CRIU = "4.2" }, "", ""},
		"an older CRIU": {
			func(here *v1alpha1.Environment) { here.CRIU = "4.1.9" },
			"the Checkpoint was made with CRIU 4.2.1, and node b has 4.1.9, which is older: update it",
			"the Checkpoint was made with CRIU 4.2.1, and node b has 4.1.9, which is older: update it",
		},
		"another architecture": {
			func(here *v1alpha1.Environment) { here.Architecture = "arm64" },
			"the architecture differs: the Checkpoint was made with amd64, and node b has arm64",
			"the architecture differs: the Checkpoint was made with amd64, and node b has arm64",
		},
		"all differences are named at once": {
			func(here *v1alpha1.Environment) { here.Cgroup, here.Kernel = "v1", "6.1.0-40" },
			"the version of control groups differs: the Checkpoint was made with v2, and node b has v1; " + older,
			"the version of control groups differs: the Checkpoint was made with v2, and node b has v1",
		},
		"a CPU with more features": {func(here *v1alpha1.Environment) { here.CPUFeatures += " amx_tile" }, "", ""},
		"a CPU without registers that CRIU has to load": {
			func(here *v1alpha1.Environment) { here.CPUFeatures = "avx gfni" },
			"the CPU of node b lacks avx512f, which the one of the Checkpoint had", "the CPU of node b lacks avx512f, which the one of the Checkpoint had",
		},
		"a CPU without instructions": {
			func(here *v1alpha1.Environment) { here.CPUFeatures = "avx avx512f" },
			"the CPU of node b lacks gfni, which the one of the Checkpoint had", "",
		},
		"an older kernel":                    {func(here *v1alpha1.Environment) { here.Kernel = "6.1.0-40" }, older, ""},
		"another patch of the kernel":        {func(here *v1alpha1.Environment) { here.Kernel = "6.12.1" }, "", ""},
		"a newer kernel":                     {func(here *v1alpha1.Environment) { here.Kernel = "7.0-rc1" }, "", ""},
		"another CRI runtime":                {func(here *v1alpha1.Environment) { here.Runtime = "cri-o://1.34.0" }, runtime, ""},
		"another version of the runtime":     {func(here *v1alpha1.Environment) { here.Runtime = "containerd://1.7.0" }, "", ""},
		"another version of the OCI runtime": {func(here *v1alpha1.Environment) { here.OCIRuntime = "runc 1.1.0" }, "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			there := &v1alpha1.Environment{
				Architecture: "amd64", Cgroup: "v2", CRIU: "4.2.1", Kernel: "6.12.48+deb13-amd64", Runtime: "containerd://2.1.9",
				OCIRuntime: "runc 1.3.6", CPUFeatures: "avx avx512f gfni",
			}
			here := there.DeepCopy()
			tt.change(here)
			if got := differences(there, here, "node b", false); got != tt.strict {
				t.Errorf("Strict: got %q, want %q", got, tt.strict)
			}
			if got := differences(there, here, "node b", true); got != tt.relaxed {
				t.Errorf("Compatible: got %q, want %q", got, tt.relaxed)
			}
		})
	}
}
