package restore

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

func TestDecideVolume(t *testing.T) {
	mine := v1alpha1.RestoreMount{PodUID: "p", NodeName: "n1", Request: "c-1"}
	with := func(change func(*v1alpha1.RestoreMount)) []v1alpha1.RestoreMount {
		m := mine
		change(&m)
		return []v1alpha1.RestoreMount{{PodUID: "other", NodeName: "n1", Request: "c-1", MountedBy: "x"}, m}
	}
	tests := map[string]struct {
		backend v1alpha1.Backend
		mounts  []v1alpha1.RestoreMount
		want    action
		says    string
	}{
		"data in a bucket need no volume":              {v1alpha1.BackendS3, nil, stage, ""},
		"a volume is asked for":                        {v1alpha1.BackendPVC, nil, askForVolume, ""},
		"a mount for another pod is none for this one": {v1alpha1.BackendPVC, with(func(m *v1alpha1.RestoreMount) { m.PodUID = "q" }), askForVolume, ""},
		"nor is one for an earlier request":            {v1alpha1.BackendPVC, with(func(m *v1alpha1.RestoreMount) { m.Request = "c-0" }), askForVolume, ""},
		"a volume that is not mounted is waited for":   {v1alpha1.BackendPVC, with(func(*v1alpha1.RestoreMount) {}), postpone, "the checkpoint-operator mounts it on node n1"},
		"why it is not mounted is said":                {v1alpha1.BackendPVC, with(func(m *v1alpha1.RestoreMount) { m.Message = "Multi-Attach error" }), postpone, "volume of Checkpoint ns/c: Multi-Attach error"},
		"a mounted volume is read":                     {v1alpha1.BackendPVC, with(func(m *v1alpha1.RestoreMount) { m.MountedBy = "u" }), stage, ""},
		"too many restores at a time wait":             {v1alpha1.BackendPVC, make([]v1alpha1.RestoreMount, v1alpha1.MaxRestoreMounts), postpone, "64 pods are being restored from it"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &state{
				pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "p"}, Spec: corev1.PodSpec{NodeName: "n1"}}, request: "c-1",
				checkpoint: &v1alpha1.Checkpoint{
					ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"},
					Status:     v1alpha1.CheckpointStatus{Storage: &v1alpha1.CheckpointStorage{Backend: tt.backend}, RestoreMounts: tt.mounts},
				},
				containers: []*container{{name: "main", target: true}},
			}
			got := decide(s, now)
			if got.action != tt.want || (got.problem == nil) != (tt.says == "") || got.problem != nil && !strings.Contains(got.problem.message, tt.says) {
				t.Errorf("decide() = %+v with the problem %+v, want action %d that says %q", got, got.problem, tt.want, tt.says)
			}
		})
	}
}

func TestWhereAVolumeCanBeUsed(t *testing.T) {
	only := func(node string) *corev1.VolumeNodeAffinity {
		return &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "kubernetes.io/hostname", Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
		}}}}
	}
	tests := map[string]struct {
		affinity *corev1.VolumeNodeAffinity
		pv       string
		reason   string
	}{
		"everywhere":                {nil, "pv", ""},
		"on this node":              {only("n1"), "pv", ""},
		"on another node only":      {only("n2"), "pv", v1alpha1.ReasonDataElsewhere},
		"a volume that was deleted": {nil, "gone", v1alpha1.ReasonStorageInvalid},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := newSweptNode(t, false)
			n.useVolume()
			n.fault.at = -1
			volume, node := &corev1.PersistentVolume{}, &corev1.Node{}
			for _, err := range []error{
				n.api.Get(t.Context(), client.ObjectKey{Name: "pv"}, volume), n.api.Get(t.Context(), client.ObjectKey{Name: "n1"}, node),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			volume.Spec.NodeAffinity, node.Labels = tt.affinity, map[string]string{"kubernetes.io/hostname": "n1"}
			if err := n.api.Update(t.Context(), volume); err != nil {
				t.Fatal(err)
			}
			if err := n.api.Update(t.Context(), node); err != nil {
				t.Fatal(err)
			}
			c := n.checkpoint()
			c.Status.Volume.VolumeName, c.Status.SourceNode = tt.pv, "n2"
			if err := n.api.Status().Update(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			n.run()
			want := v1alpha1.ReasonRestored
			if tt.reason != "" {
				want = tt.reason
			}
			if got := conditionOf(n.pod()); got == nil || got.Reason != want {
				t.Errorf("the condition is %+v, want the reason %s", got, want)
			}
		})
	}
}
