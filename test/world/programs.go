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

// programsVariable names a folder with programs that are built already. It saves the
// minute of building them, or selects other programs.
const programsVariable = "HOLDFAST_PROGRAMS"

// module is the path of the module that has the programs.
const module = "github.com/holdfast-io/holdfast"

// built holds the programs that this process has built.
var built struct {
	sync.Mutex
	dir string // removed by Main
	err error
}

// Main runs the tests of a package and returns their exit code. A package that starts
// programs calls it from TestMain: it removes the programs when the last test has
// ended.
func Main(m *testing.M) int {
	ctrl.SetLogger(logr.Discard()) // The tests' own messages are enough.
	defer func() {
		built.Lock()
		defer built.Unlock()
		os.RemoveAll(built.dir)
	}()
	return m.Run()
}

// Programs returns the folder with the programs under test: holdfast, holdfast-runtime and
// local-driver.
// The first call builds them as they are released: static, so that they also run in
// images.
func Programs() (string, error) {
	if dir := os.Getenv(programsVariable); dir != "" {
		return dir, nil
	}
	built.Lock() // Other tests wait for the same build.
	defer built.Unlock()
	if built.dir == "" && built.err == nil {
		built.dir, built.err = build()
	}
	return built.dir, built.err
}

func build() (string, error) {
	dir, err := os.MkdirTemp("", "holdfast-programs-")
	if err != nil {
		return "", fmt.Errorf("creating a folder for the programs: %w", err)
	}
	cmd := exec.Command("go", "build", "-tags=grpcnotrace", "-trimpath", "-ldflags=-s -w", "-o", dir,
		module+"/cmd/holdfast", module+"/cmd/holdfast-runtime", module+"/cmd/local-driver")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	return dir, nil
}
