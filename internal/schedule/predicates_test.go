package schedule

import (
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

func TestWhatChangesWakesASchedule(t *testing.T) {
	tests := map[string]struct {
		object client.Object
		change func(client.Object)
		wakes  bool
	}{
		"a schedule that says something else":                {&v1alpha1.SnapshotSchedule{}, func(o client.Object) { o.SetGeneration(2) }, true},
		"a schedule whose status is written":                 {&v1alpha1.SnapshotSchedule{}, func(o client.Object) { o.SetResourceVersion("2") }, false},
		"a schedule that was made anew while nobody watched": {&v1alpha1.SnapshotSchedule{}, func(o client.Object) { o.SetUID("2") }, true},
		"a snapshot that becomes ready": {&snapshotv1.VolumeSnapshot{}, func(o client.Object) {
			o.(*snapshotv1.VolumeSnapshot).Status = &snapshotv1.VolumeSnapshotStatus{ReadyToUse: ptr.To(true)}
		}, true},
		"a snapshot that is handed over":                     {&snapshotv1.VolumeSnapshot{}, func(o client.Object) { o.SetLabels(map[string]string{uidLabel: "2"}) }, true},
		"a snapshot that gets a finalizer":                   {&snapshotv1.VolumeSnapshot{}, func(o client.Object) { o.SetFinalizers([]string{"x"}) }, false},
		"a snapshot that is being deleted":                   {&snapshotv1.VolumeSnapshot{}, func(o client.Object) { o.SetDeletionTimestamp(metaTime(noon)) }, true},
		"a snapshot that was made anew while nobody watched": {&snapshotv1.VolumeSnapshot{}, func(o client.Object) { o.SetUID("2") }, true},
		"a claim that gets a volume": {&corev1.PersistentVolumeClaim{}, func(o client.Object) {
			o.(*corev1.PersistentVolumeClaim).Status.Phase = corev1.ClaimBound
		}, true},
		"a claim that gets a label":                       {&corev1.PersistentVolumeClaim{}, func(o client.Object) { o.SetLabels(map[string]string{"app": "shop"}) }, true},
		"a claim that gets an annotation":                 {&corev1.PersistentVolumeClaim{}, func(o client.Object) { o.SetAnnotations(map[string]string{"x": "y"}) }, false},
		"a claim that is being deleted":                   {&corev1.PersistentVolumeClaim{}, func(o client.Object) { o.SetDeletionTimestamp(metaTime(noon)) }, true},
		"a claim that was made anew while nobody watched": {&corev1.PersistentVolumeClaim{}, func(o client.Object) { o.SetUID("2") }, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var news predicate.Predicate
			switch tt.object.(type) {
			case *v1alpha1.SnapshotSchedule:
				news = scheduleChanged()
			case *snapshotv1.VolumeSnapshot:
				news = childChanged(snapshotKind{})
			default:
				news = claimChanged()
			}
			before := tt.object.DeepCopyObject().(client.Object)
			tt.change(tt.object)
			if got := news.Update(event.UpdateEvent{ObjectOld: before, ObjectNew: tt.object}); got != tt.wakes {
				t.Errorf("it wakes: %v", got)
			}
		})
	}
}
