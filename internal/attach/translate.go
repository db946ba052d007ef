package attach

import (
	"context"

	"github.com/holdfast-io/holdfast/internal/migrate"
)

// translate puts an in-tree volume into CSI form, for calls to the driver only:
// the PersistentVolume keeps its in-tree form. A detachment does not depend on
// it if the record has the handle. The recorded node may differ from the
// current one, so the handle is also translated for the recorded node.
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
