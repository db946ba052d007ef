package crash

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// The mutants are changed along with the code that they change; hack/crash-mutants.sh
// shows that the sweep notices them.
func TestMutantsApply(t *testing.T) {
	t.Parallel()
	mutants, err := filepath.Glob(filepath.Join("mutants", "*.patch"))
	if err != nil || len(mutants) == 0 {
		t.Fatalf("there are no mutants: %v", err)
	}
	for _, mutant := range mutants {
		check := exec.CommandContext(t.Context(), "git", "apply", "--check", filepath.Join("test", "crash", mutant))
		check.Dir = filepath.Join("..", "..")
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s does not fit the code any more, change it too: %v\n%s", mutant, err, out)
		}
	}
}
