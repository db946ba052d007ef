package orphan

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/internal/store"
)

// grace is how old something in a store must be to be an orphan. What is younger may belong
// to an upload or a deletion that is going on.
const grace = time.Hour

// A place is a store and where it is, for the user.
type place struct {
	store    store.Store
	location func(key string) string
}

// A found object is one that belongs to no Checkpoint.
type found struct {
	store.Info
	location string
}

// keyForm is that of the keys of archives, below the prefix of a store: the UID of the
// Checkpoint and the name of the container.
var keyForm = regexp.MustCompile(`(?:^|/)([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/[^/]+\.ckpt$`)

// uidOf returns the UID in a key; "" for a key of another form.
func uidOf(key string) types.UID {
	if match := keyForm.FindStringSubmatch(key); match != nil {
		return types.UID(match[1])
	}
	return ""
}

// list returns what is in a store, has the form of our keys, and is old enough.
func (p *place) list(ctx context.Context, now time.Time) ([]found, error) {
	var all []found
	err := p.store.List(ctx, "", func(i store.Info) error {
		if uidOf(i.Key) != "" && now.Sub(i.Modified) >= grace {
			all = append(all, found{i, p.location(i.Key)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", p.location(""), err)
	}
	return all, nil
}

// confirm returns those that are still there. One that is not was deleted together with its
// Checkpoint, after the store was listed and before the Checkpoints were.
func (p *place) confirm(ctx context.Context, orphans []found) ([]found, error) {
	var left []found
	for _, o := range orphans {
		exists := false
		err := p.store.List(ctx, o.Key, func(i store.Info) error {
			exists = exists || i.Key == o.Key && i.Incomplete == o.Incomplete
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("listing %s: %w", o.location, err)
		}
		if exists {
			left = append(left, o)
		}
	}
	return left, nil
}

// sortLargestFirst sorts orphans by size, and those of the same size by location.
func sortLargestFirst(all []found) {
	slices.SortFunc(all, func(a, b found) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), strings.Compare(a.location, b.location))
	})
}
