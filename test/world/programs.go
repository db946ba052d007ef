package world

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

// programsVariable names a folder with programs that are built already: for a
// second run without the minute of building, or to try other ones.
const programsVariable = "HOLDFAST_PROGRAMS"

// module is where the programs are, in whatever folder of it a test runs.
const module = "github.com/holdfast-io/holdfast"

// built are the programs of this process.
var built struct {
	sync.Mutex
	dir string // removed by Main
	err error
}

// Main runs the tests of a package and returns their exit code. A package that
// starts programs calls it from its TestMain, because what was built for it is
// removed when its last test has ended.
func Main(m *testing.M) int {
	ctrl.SetLogger(logr.Discard()) // What the tests say is enough.
	defer func() {
		built.Lock()
		defer built.Unlock()
		os.RemoveAll(built.dir)
	}()
	return m.Run()
}

// Programs is the folder with the programs under test, holdfast and
// local-driver. They are built at the first call, as they are shipped: static,
// so that they can go into images too.
func Programs() (string, error) {
	if dir := os.Getenv(programsVariable); dir != "" {
		return dir, nil
	}
	built.Lock() // Until they are there: whoever waits wants the same ones.
	defer built.Unlock()
	if built.dir == "" && built.err == nil {
		built.dir, built.err = build()
	}
	return built.dir, built.err
}

func build() (string, error) {
	dir, err := os.MkdirTemp("", "holdfast-programs-")
	if err != nil {
		return "", fmt.Errorf("making a folder for the programs: %w", err)
	}
	cmd := exec.Command("go", "build", "-tags=grpcnotrace", "-trimpath", "-ldflags=-s -w", "-o", dir, module+"/cmd/holdfast", module+"/cmd/local-driver")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	return dir, nil
}
