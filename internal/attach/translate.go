package attach

import (
	"context"

	"github.com/holdfast-io/holdfast/internal/migrate"
)

// translate puts a volume of the plugin whose place the driver has taken into
// the driver's form, for the driver only: users know the PersistentVolume in the
// plugin's. A detachment does without, if the VolumeAttachment says what was
// published, or on which node: that may be another one by now.
func (s *state) translate(ctx context.Context, p migrate.Plugin) {
	if s.volume == nil || !p.HasVolume(s.volume) {
		return
	}
	translated, err := p.ToCSI(ctx, s.volume)
	if err != nil {
		s.translationErr = err
		return
	}
	source := translated.Spec.CSI
	if node := recordOf(s.attachment).nodeID; node != "" && node != s.nodeID {
		if handle, err := p.RepairHandle(source.VolumeHandle, node); err == nil {
			s.fallback = record{handle: handle, secret: source.ControllerPublishSecretRef}
		}
	}
	if s.nodeID != "" {
		if source.VolumeHandle, err = p.RepairHandle(source.VolumeHandle, s.nodeID); err != nil {
			s.translationErr = err
			return
		}
	}
	s.spec = &translated.Spec
}
