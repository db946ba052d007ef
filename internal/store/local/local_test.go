package local

import (
	"testing"

	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/storetest"
)

// The first contract runs on a disk. The others do not wait for one.
func TestContract(t *testing.T) {
	t.Run("directory of a node", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) store.Store { return New(t.TempDir() + "/not/there/yet") })
	})
	t.Run("directory of a volume", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) store.Store { return NewInVolume(mountTmpfs(t, "size=100m")) })
	})
	t.Run("filesystem that cannot rename without replacing", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) store.Store {
			s := New(mountTmpfs(t, "size=100m"))
			s.rename = linkNoReplace
			return s
		})
	})
}
