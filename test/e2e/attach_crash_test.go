package e2e

import (
	"errors"
	"testing"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/test/world"
)

// An attacher may die before or after any write and any call, or not hear the
// answer. Whichever it was, what is wanted is attached, and what is not is
// neither published nor held by a finalizer.
func TestAttachingSurvivesDeathAtAnyPoint(t *testing.T) {
	t.Parallel()
	scenarios := map[string]func(t *testing.T, m *mortal, volume, node string){
		"attach, then detach": func(t *testing.T, m *mortal, volume, node string) {
			name := m.Attach(t, volume, node)
			m.Attached(t, name)
			m.Detach(t, name)
			m.Detached(t, name)
		},
		"attach, and delete while it is attached": func(t *testing.T, m *mortal, volume, node string) {
			name := m.Attach(t, volume, node)
			m.Attachment(t, name, func(a *storagev1.VolumeAttachment) error {
				if len(a.Finalizers) == 0 {
					return errors.New("nobody has begun")
				}
				return nil
			})
			m.Detach(t, name)
			m.Detached(t, name)
		},
		"the node goes while it is attached": func(t *testing.T, m *mortal, volume, node string) {
			name := m.Attach(t, volume, node)
			m.Attached(t, name)
			m.DropCSINode(t.Context(), t, node)
			m.Detach(t, name)
			m.Detached(t, name)
		},
		"from one node to another": func(t *testing.T, m *mortal, volume, node string) {
			name := m.Attach(t, volume, node)
			m.Attached(t, name)
			m.Detach(t, name)
			m.Detached(t, name)
			other := m.Attach(t, volume, m.CSINode(t, "other-"+volume[len(m.Namespace)+1:], "other"))
			m.Attached(t, other)
			m.Detach(t, other)
			m.Detached(t, other)
		},
	}
	for name, play := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, attachable)
			m := &mortal{
				World: w, role: "csi-attacher", args: w.AttacherArgs(),
				methods: []csi.Method{csi.ControllerPublishVolume, csi.ControllerUnpublishVolume},
			}
			m.live(t)
			m.sweep(t, func(name string) {
				volume := m.Volume(t, name, nil)
				play(t, m, volume.Name, m.CSINode(t, name, name))
				published(t, w, volume.Spec.CSI.VolumeHandle)
				if err := m.Client.CoreV1().PersistentVolumes().Delete(t.Context(), volume.Name, metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
				m.Gone(t, volume)
			})
		})
	}
}
