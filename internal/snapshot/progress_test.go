package snapshot

import (
	"maps"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestEndedOperationsAreMeasured(t *testing.T) {
	at := time.Unix(1000, 0)
	object := &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{UID: "u", CreationTimestamp: metav1.NewTime(at)}}
	deleted := object.DeepCopy()
	deleted.DeletionTimestamp = &metav1.Time{Time: at.Add(10 * time.Second)}
	fresh := Progress{Object: object, Driver: "d", Operations: OperationNames{"create", "ready", "delete"}}
	as := func(change func(*Progress)) Progress {
		p := fresh
		change(&p)
		return p
	}
	cut := as(func(p *Progress) { p.Created = true })
	ready := as(func(p *Progress) { p.Created, p.Ready = true, true })
	given := as(func(p *Progress) { p.PreProvisioned = true })
	tests := map[string]struct {
		before Progress
		now    *Progress // nil if the finalizer was removed
		want   map[string]float64
	}{
		"nothing without a change":                  {fresh, &fresh, map[string]float64{}},
		"creation":                                  {fresh, &cut, map[string]float64{"create success": 19.5}},
		"readiness, after creation":                 {cut, &ready, map[string]float64{"ready success": 19.5}},
		"both at once":                              {fresh, &ready, map[string]float64{"create success": 19.5, "ready success": 19.5}},
		"no creation of a pre-provisioned snapshot": {given, new(as(func(p *Progress) { p.PreProvisioned, p.Created, p.Ready = true, true, true })), map[string]float64{"ready success": 19.5}},
		"deletion":                                  {as(func(p *Progress) { p.Object, p.Created, p.Ready = deleted, true, true }), nil, map[string]float64{"delete success": 9.5}},
		"what was cancelled, until the deletion started": {as(func(p *Progress) { p.Object, p.Created = deleted, true }), nil, map[string]float64{"ready cancel": 9.5, "delete success": 9.5}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := NewOperationDurations()
			o.now = func() time.Time { return at.Add(20 * time.Second) }
			if tt.now != nil {
				o.ObserveProgress(tt.before, *tt.now)
			} else {
				o.ObserveDeletion(tt.before)
			}
			if got := sumsByLabels(t, o, "operation_name", "operation_status"); !maps.Equal(got, tt.want) {
				t.Errorf("got %v", got)
			}
		})
	}
}
