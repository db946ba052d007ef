package csi

import (
	"context"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/keymutex"
)

// waitTimeout limits waiting for something that must happen.
const waitTimeout = 30 * time.Second

func TestKeysDoNotWaitForEachOther(t *testing.T) {
	var all keymutex.KeyMutex
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	for _, key := range []string{volumeID("x"), volumeNamed("x"), snapshotID("x"), snapshotNamed("x"), groupID("x"), groupNamed("x"), volumeID("named x"), volumeID(`named "x"`)} {
		release, err := all.Lock(ctx, key)
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		defer release()
	}
}
