package local

import (
	"path/filepath"
	"testing"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

// This driver fulfils the contract that Holdfast's controllers rely on.
func TestContract(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"on its node":        func(*Options) {},
		"attached to a node": attaching,
	} {
		t.Run(name, func(t *testing.T) {
			d := serveIn(t, change)
			csitest.Contract(t, filepath.Join(d.dir, "csi.sock"))
		})
	}
}
