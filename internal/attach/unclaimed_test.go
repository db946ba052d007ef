package attach

import (
	"errors"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// A detachment that waited may be of an object that is another one by now: somebody
// has removed it by force, and another process has attached what was made anew.
func TestRecreatedAttachmentKeepsItsVolume(t *testing.T) {
	waited := time.Now().Add(-time.Minute)
	tests := map[string]struct {
		at      time.Time
		changes []func(*state) // of what has the name now
		wanted  bool
	}{
		"it has the same on record":                       {waited, []func(*state){recorded}, false},
		"it is the one that is being detached":            {waited, []func(*state){recorded, func(s *state) { s.attachment.UID = "old" }}, true},
		"nothing was asked for it":                        {waited, nil, true},
		"it has another node on record":                   {waited, []func(*state){recorded, func(s *state) { s.attachment.Annotations[nodeAnnotation] = "new" }}, true},
		"it is being deleted, and detached for that":      {waited, []func(*state){recorded, deleting}, true},
		"a call that did not wait does not ask once more": {time.Now().Add(time.Minute), []func(*state){recorded}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			old, now := newState(), newState()
			recorded(&old)
			old.attachment.UID, now.attachment.UID = "old", "new"
			for _, change := range tt.changes {
				change(&now)
			}
			api := &server{object: now.attachment}
			r := &Reconciler{client: api, apiReader: api, options: options}
			err := r.notRecordedElsewhere(old.attachment, old.published(), tt.at)(t.Context())
			if (err == nil) != tt.wanted || err != nil && !errors.Is(err, csi.ErrPreconditionFailed) {
				t.Errorf("got %v", err)
			}
		})
	}
}
