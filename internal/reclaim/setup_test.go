package reclaim

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

func TestAttachmentsAreReducedInTheCache(t *testing.T) {
	var o cache.Options
	CacheOptions("csitest.holdfast.io", &o)
	attachment := func(attacher string) *storagev1.VolumeAttachment {
		return &storagev1.VolumeAttachment{
			ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "u", ResourceVersion: "1", Finalizers: []string{"x"}},
			Spec: storagev1.VolumeAttachmentSpec{
				Attacher: attacher, NodeName: "n1", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr.To("pv")},
			},
			Status: storagev1.VolumeAttachmentStatus{Attached: true},
		}
	}
	name := metav1.ObjectMeta{Name: "a", UID: "u", ResourceVersion: "1"}
	for attacher, want := range map[string]*storagev1.VolumeAttachment{
		"csitest.holdfast.io": {ObjectMeta: name, Spec: storagev1.VolumeAttachmentSpec{
			Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr.To("pv")}}},
		"other.example.com": {ObjectMeta: name},
	} {
		for _, by := range o.ByObject {
			got, err := by.Transform(attachment(attacher))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("of %s: %s", attacher, diff)
			}
		}
	}
}
