package scale

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-io/holdfast/test/world"
)

// sizeBudget is the largest size of the program in bytes: most of a process's resident
// memory is its file.
const sizeBudget = 44 << 20

// A package that makes Go's templates reachable, such as cobra with a custom template,
// makes the linker keep every method of every type: ten megabytes.
func TestProgramIsSmall(t *testing.T) {
	programs, err := world.Programs()
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Stat(filepath.Join(programs, "holdfast"))
	if err != nil {
		t.Fatal(err)
	}
	if file.Size() > sizeBudget {
		t.Errorf("holdfast has %d MiB, more than %d", file.Size()>>20, sizeBudget>>20)
	}
}
