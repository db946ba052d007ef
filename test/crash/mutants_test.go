package crash

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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

// A way to strike with which the sweep could not fail would show nothing: for each
// there is a mutant that is to be noticed by it. Processes that die have been tried
// with the first mutants, which name no ways.
func TestEveryWayHasAMutant(t *testing.T) {
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
			if ways, ok := strings.CutPrefix(line, "Faults: "); ok {
				for _, way := range strings.Split(strings.TrimSpace(ways), ", ") {
					named[way] = true
				}
			}
		}
	}
	all := faultKinds()
	for _, kind := range all {
		if !named[kind] && !strings.HasPrefix(kind, "killed") {
			t.Errorf("no mutant is to be noticed by the way %q", kind)
		}
	}
	for kind := range named {
		if !slices.Contains(all, kind) {
			t.Errorf("a mutant is to be noticed by %q, which is no way", kind)
		}
	}
}
