package crash

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The mutants change along with the code that they patch. hack/crash-mutants.sh shows
// that the sweep detects them.
func TestMutantsApply(t *testing.T) {
	t.Parallel()
	mutants, err := filepath.Glob(filepath.Join("mutants", "*.patch"))
	if err != nil || len(mutants) == 0 {
		t.Fatalf("no mutants were found: %v", err)
	}
	for _, mutant := range mutants {
		check := exec.CommandContext(t.Context(), "git", "apply", "--check", filepath.Join("test", "crash", mutant))
		check.Dir = filepath.Join("..", "..")
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s does not apply to the code any more, adapt it: %v\n%s", mutant, err, out)
		}
	}
}

// For each fault a mutant shows that the sweep can detect something with it. The first
// mutants, which name no faults, show that for killed processes.
func TestEveryFaultHasAMutant(t *testing.T) {
	t.Parallel()
	mutants, err := filepath.Glob(filepath.Join("mutants", "*.patch"))
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, mutant := range mutants {
		text, err := os.ReadFile(mutant)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if faults, ok := strings.CutPrefix(line, "Faults: "); ok {
				for _, fault := range strings.Split(strings.TrimSpace(faults), ", ") {
					named[fault] = true
				}
			}
		}
	}
	all := faultKinds()
	for _, kind := range all {
		if !named[kind] && !strings.HasPrefix(kind, "killed") {
			t.Errorf("no mutant names the fault %q", kind)
		}
	}
	for kind := range named {
		if !slices.Contains(all, kind) {
			t.Errorf("a mutant names %q, which is no fault", kind)
		}
	}
}
