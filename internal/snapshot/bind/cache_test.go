package bind

import (
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestTheCacheKeepsOfAVolumeWhatIsAskedFor(t *testing.T) {
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v", Labels: map[string]string{"a": "b"}}}
	volume.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{}
	if small := (&Options{}).reduceVolume(volume); small.Name != "v" || small.Labels != nil || small.Spec.NodeAffinity != nil {
		t.Errorf("kept is %+v", small)
	}
	if small := (&Options{Distributed: true}).reduceVolume(volume); small.Spec.NodeAffinity == nil {
		t.Error("where snapshots are made on nodes the volume's nodes are missing")
	}
}

func TestOnlySnapshotsThatWaitAreFoundByTheirClaim(t *testing.T) {
	at := metav1.Now()
	tests := map[string]struct {
		finalizers []string
		status     *snapshotv1.VolumeSnapshotStatus
		want       bool
	}{
		"a new one":             {nil, nil, true},
		"one that is being cut": {singleWords.Ours, &snapshotv1.VolumeSnapshotStatus{BoundVolumeSnapshotContentName: ptr.To("c")}, true},
		"one that is cut":       {singleWords.Ours, &snapshotv1.VolumeSnapshotStatus{BoundVolumeSnapshotContentName: ptr.To("c"), CreationTime: &at}, false},
		"one that never was protected, and bound": {nil, &snapshotv1.VolumeSnapshotStatus{BoundVolumeSnapshotContentName: ptr.To("c")}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{Finalizers: tt.finalizers}, Status: tt.status}
			s.Spec.Source.PersistentVolumeClaimName = ptr.To("claim")
			if got := len(claimNeeded(s)) > 0; got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
