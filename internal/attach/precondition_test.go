package attach

import (
	"errors"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// While a detachment waits, somebody may remove its VolumeAttachment by force and
// create another one of that name, which another process attaches.
func TestRecreatedAttachmentKeepsItsVolume(t *testing.T) {
	waited := time.Now().Add(-time.Minute)
	tests := map[string]struct {
		at      time.Time
		changes []func(*state) // of the current VolumeAttachment
		wanted  bool
	}{
		"another object of that name has the same on record":                  {waited, []func(*state){recorded}, false},
		"the object is still the same":                                        {waited, []func(*state){recorded, func(s *state) { s.attachment.UID = "old" }}, true},
		"the other object has no record":                                      {waited, nil, true},
		"the other object has another node on record":                         {waited, []func(*state){recorded, func(s *state) { s.attachment.Annotations[nodeAnnotation] = "new" }}, true},
		"the other object is being deleted, and waits for its own detachment": {waited, []func(*state){recorded, deleting}, true},
		"a call that did not wait does not read the object again":             {time.Now().Add(time.Minute), []func(*state){recorded}, true},
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
