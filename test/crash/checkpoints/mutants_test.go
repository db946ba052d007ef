package checkpoints

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// The mutants change along with the code that they patch. hack/checkpoint-mutants.sh shows
// that the sweep detects them.
func TestMutantsApply(t *testing.T) {
	t.Parallel()
	mutants, err := filepath.Glob(filepath.Join("mutants", "*.patch"))
	if err != nil || len(mutants) == 0 {
		t.Fatalf("no mutants were found: %v", err)
	}
	for _, mutant := range mutants {
		check := exec.CommandContext(t.Context(), "git", "apply", "--check", filepath.Join("test", "crash", "checkpoints", mutant))
		check.Dir = filepath.Join("..", "..", "..")
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s does not apply to the code any more, adapt it: %v\n%s", mutant, err, out)
		}
	}
}
