package attach

import (
	"context"

	"github.com/holdfast-io/holdfast/internal/migrate"
)

// translate puts a volume of the plugin whose place the driver has taken into
// the driver's form, for the driver only: users know the PersistentVolume in the
// plugin's. A detachment does without, if the VolumeAttachment says what was
// published, or on which node: that may be another one by now.
func (s *seen) translate(ctx context.Context, p migrate.Plugin) {
	if s.volume == nil || !p.Has(s.volume) {
		return
	}
	translated, err := p.ToCSI(ctx, s.volume)
	if err != nil {
		s.untranslated = err
		return
	}
	source := translated.Spec.CSI
	if node := recordOf(s.attachment).node; node != "" && node != s.node {
		if handle, err := p.Handle(source.VolumeHandle, node); err == nil {
			s.unrecorded = record{handle: handle, secret: source.ControllerPublishSecretRef}
		}
	}
	if s.node != "" {
		if source.VolumeHandle, err = p.Handle(source.VolumeHandle, s.node); err != nil {
			s.untranslated = err
			return
		}
	}
	s.spec = &translated.Spec
}
