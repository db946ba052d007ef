package node

import (
	"errors"
	"fmt"
	"testing"

	"github.com/holdfast-io/holdfast/internal/store"
)

func TestSizesHaveAUnit(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0", 1023: "1023", 1024: "1.0Ki", 53583: "52.3Ki", 1 << 20: "1.0Mi", 5 << 40: "5.0Ti", 1<<63 - 1: "8.0Ei"} {
		if got := formatSize(bytes); got != want {
			t.Errorf("%d: got %s, want %s", bytes, got, want)
		}
	}
}

func TestStorageReasons(t *testing.T) {
	for name, row := range map[string]struct {
		err         error
		reason, who string
	}{
		"a wrong configuration is the user's": {store.ErrInvalid, "StorageInvalid", "User"},
		"so are wrong credentials":            {store.ErrDenied, "StorageDenied", "User"},
		"and a full store":                    {store.ErrFull, "StorageFull", "User"},
		"a store may be reachable again":      {store.ErrUnavailable, "StorageUnavailable", "Store"},
		"what is not known may pass":          {errors.New("EOF"), "StorageUnavailable", "Store"},
	} {
		reason, who := storageReason(fmt.Errorf("storing: %w", row.err))
		if reason != row.reason || who != row.who {
			t.Errorf("%s: got %s and %s, want %s and %s", name, reason, who, row.reason, row.who)
		}
	}
}
