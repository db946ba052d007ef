package attach

import (
	"context"

	"github.com/holdfast-io/holdfast/internal/migrate"
)

// translate puts a volume of the plugin whose place the driver has taken into
// the driver's form, for the driver only: users know the PersistentVolume in the
// plugin's. A detachment does without, if the VolumeAttachment says what was
// published.
func (s *seen) translate(ctx context.Context, p migrate.Plugin) {
	if s.volume == nil || !p.Has(s.volume) {
		return
	}
	translated, err := p.ToCSI(ctx, s.volume)
	if err == nil && s.node != "" {
		source := translated.Spec.CSI
		source.VolumeHandle, err = p.Handle(source.VolumeHandle, s.node)
	}
	if err != nil {
		s.untranslated = err
		return
	}
	s.spec = &translated.Spec
}
