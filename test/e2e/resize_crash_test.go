package e2e

import (
	"fmt"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// A resizer may die before or after any write and any call. Whichever it was,
// its successor ends with a claim, a PersistentVolume and a volume at the driver
// that agree, and with nothing left to do.
func TestResizingSurvivesDeathAtAnyPoint(t *testing.T) {
	t.Parallel()
	scenarios := map[string]func(t *testing.T, d *deadly, claim string){
		"expand": func(t *testing.T, d *deadly, claim string) {
			d.Request(t, claim, "3Gi")
			d.agrees(t, d.Sized(t, claim, "3Gi"))
		},
		"expand, then request less": func(t *testing.T, d *deadly, claim string) {
			d.Request(t, claim, "10Gi")
			d.ClaimIs(t, claim, func(c *corev1.PersistentVolumeClaim) error {
				if !has(c, corev1.PersistentVolumeClaimControllerResizeError) {
					return fmt.Errorf("the driver has not refused it: %+v", c.Status)
				}
				return nil
			})
			d.Request(t, claim, "2Gi")
			d.agrees(t, d.Sized(t, claim, "2Gi"))
		},
		"modify, then modify again": func(t *testing.T, d *deadly, claim string) {
			d.Want(t, claim, d.gold)
			d.ClaimIs(t, claim, func(c *corev1.PersistentVolumeClaim) error {
				if c.Status.ModifyVolumeStatus == nil && ptr.Deref(c.Status.CurrentVolumeAttributesClassName, "") == "" {
					return fmt.Errorf("nothing has begun: %+v", c.Status)
				}
				return nil
			})
			d.Want(t, claim, d.silver) // Whatever has become of the other meanwhile.
			hasClass(t, d.World, claim, d.silver)
			d.agrees(t, d.ClaimIs(t, claim, nothingToModify))
		},
	}
	for name, play := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDeadly(t)
			d.sweep(t, func(claim string) {
				d.Claim(t, claim, nil)
				d.Bound(t, claim)
				play(t, d, claim)
				d.DropClaim(t, claim)
			})
			d.NothingLeft(t)
		})
	}
}

// deadly is a world whose resizer is mortal. The driver does not make volumes of
// more than 4 GiB.
type deadly struct {
	mortal
	gold, silver string
}

func newDeadly(t *testing.T) *deadly {
	t.Helper()
	w := world.New(t, csitest.Options{})
	d := &deadly{mortal: mortal{
		World: w, role: "csi-resizer", args: w.ResizerArgs(), methods: []csi.Method{csi.ControllerExpandVolume, csi.ControllerModifyVolume},
		refuse: func(_ csi.Method, req any) error {
			if r, ok := req.(*csipb.ControllerExpandVolumeRequest); ok && r.GetCapacityRange().GetRequiredBytes() > 4<<30 {
				return status.Error(codes.Internal, "the pool has 4Gi")
			}
			return nil
		},
	}}
	d.gold, d.silver = d.Attributes(t, "gold", map[string]string{"iops": "1000"}), d.Attributes(t, "silver", map[string]string{"iops": "100"})
	d.Class(t, world.Expandable)
	d.Provisioner(t)
	d.live(t)
	return d
}

// agrees fails if the claim, its PersistentVolume and the driver do not agree.
func (d *deadly) agrees(t *testing.T, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	volume, err := d.Client.CoreV1().PersistentVolumes().Get(t.Context(), claim.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range d.Driver.Volumes() {
		if v.ID != volume.Spec.CSI.VolumeHandle {
			continue
		}
		if size := claim.Status.Capacity.Storage().Value(); size != volume.Spec.Capacity.Storage().Value() || size != v.Bytes {
			t.Errorf("claim %s has %d bytes, its volume %s, and the driver %d", claim.Name, size, volume.Spec.Capacity.Storage(), v.Bytes)
		}
		class := ptr.Deref(claim.Status.CurrentVolumeAttributesClassName, "")
		if want := map[string]string{d.gold: "1000", d.silver: "100"}[class]; class != ptr.Deref(volume.Spec.VolumeAttributesClassName, "") || v.Mutable["iops"] != want {
			t.Errorf("claim %s has class %q, its volume %v, and the driver %v", claim.Name, class, volume.Spec.VolumeAttributesClassName, v.Mutable)
		}
		return
	}
	t.Errorf("the driver does not have %s", volume.Spec.CSI.VolumeHandle)
}
