package local

import (
	"context"
	"testing"

	"github.com/holdfast-io/holdfast/internal/store/storetest"
)

// Nothing is left, not even an incomplete upload: no server finishes it later.
func TestAbortAfterItsContextHasEnded(t *testing.T) {
	t.Parallel()
	s := New(t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	w := storetest.MustCreate(ctx, t, s, "a", storetest.Data("a", storetest.Large))
	cancel()
	if err := w.Abort(); err != nil {
		t.Errorf("abort: %v", err)
	}
	storetest.WantList(t, s, "")
}
