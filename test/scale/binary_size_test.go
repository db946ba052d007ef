package scale

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-io/holdfast/test/world"
)

// sizeBudget in bytes is what the program may be: most of what a process has
// resident is its file.
const sizeBudget = 44 << 20

// A package that makes Go's templates reachable, such as cobra with a template
// of one's own, has the linker keep every method of every type: ten megabytes.
func TestTheProgramIsSmall(t *testing.T) {
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
