package node

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

func TestDecide(t *testing.T) {
	now := time.Now()
	in := func(d time.Duration) *metav1.Time { at := metav1.NewTime(now.Add(d)); return &at }
	for name, row := range map[string]struct {
		change func(*state)
		want   action
	}{
		"a new Checkpoint is dumped":            {func(*state) {}, dump},
		"what was dumped is stored":             {func(s *state) { s.dumped, s.complete = true, true }, save},
		"a part of the dumps is not stored":     {func(s *state) { s.dumped = true }, dump},
		"a failed attempt waits for its time":   {func(s *state) { s.checkpoint.Status.NextAttemptTime = in(time.Minute) }, wait},
		"a failed upload waits for its time":    {func(s *state) { s.complete = true; s.checkpoint.Status.NextAttemptTime = in(time.Minute) }, wait},
		"a retry that is due takes place":       {func(s *state) { s.checkpoint.Status.NextAttemptTime = in(-time.Second) }, dump},
		"the last attempt has died":             {func(s *state) { s.checkpoint.Status.Attempts = 3 }, giveUp},
		"what the last attempt dumped is saved": {func(s *state) { s.checkpoint.Status.Attempts, s.complete = 3, true }, save},
		"a ready Checkpoint is done": {
			func(s *state) { s.checkpoint.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: "True"}} }, none,
		},
		"a ready Checkpoint leaves nothing on the node": {
			func(s *state) {
				s.dumped = true
				s.checkpoint.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: "True"}}
			}, discard,
		},
		"a failed Checkpoint leaves nothing on the node": {
			func(s *state) {
				s.dumped = true
				s.checkpoint.Status.Conditions = []metav1.Condition{{Type: "Failed", Status: "True"}}
			}, discard,
		},
		"nothing is frozen before the volume is mounted": {func(s *state) { inVolume(s.checkpoint, "") }, none},
		"with the volume mounted it is dumped":           {func(s *state) { inVolume(s.checkpoint, "p1") }, dump},
		"what was dumped is stored, or fails, although the volume is not mounted any more": {
			func(s *state) { inVolume(s.checkpoint, ""); s.dumped, s.complete = true, true }, save,
		},
		"data in a claim are deleted when it is mounted": {
			func(s *state) { s.checkpoint.DeletionTimestamp = in(0); inVolume(s.checkpoint, "p1") }, deleteData,
		},
		"until then they stay": {
			func(s *state) { s.checkpoint.DeletionTimestamp = in(0); inVolume(s.checkpoint, "") }, none,
		},
		"without data the claim is not needed": {
			func(s *state) {
				s.checkpoint.DeletionTimestamp = in(0)
				inVolume(s.checkpoint, "")
				s.checkpoint.Status.Containers[0].Location = ""
			}, deleteData,
		},
		"a claim of the Checkpoint's own is deleted by the operator": {
			func(s *state) {
				s.checkpoint.DeletionTimestamp = in(0)
				inVolume(s.checkpoint, "")
				s.checkpoint.Status.Storage.PVCTemplate = &v1alpha1.PVCTemplate{}
			}, deleteData,
		},
		"a container of another node is not dumped": {func(s *state) { s.checkpoint.Status.SourceNode = "n2" }, none},
		"the data of a deleted Checkpoint are deleted": {
			func(s *state) { s.checkpoint.DeletionTimestamp = in(0) }, deleteData,
		},
		"data of a container of another node are deleted when assigned": {
			func(s *state) { s.checkpoint.DeletionTimestamp, s.checkpoint.Status.SourceNode = in(0), "n2" }, deleteData,
		},
		"a Checkpoint that was released leaves nothing on the node": {
			func(s *state) { s.checkpoint.DeletionTimestamp, s.checkpoint.Finalizers, s.dumped = in(0), nil, true }, discard,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &state{checkpoint: &v1alpha1.Checkpoint{
				ObjectMeta: metav1.ObjectMeta{Finalizers: []string{v1alpha1.Finalizer}},
				Status:     v1alpha1.CheckpointStatus{NodeName: "n1", SourceNode: "n1"},
			}}
			row.change(s)
			if got := decide(s, &Options{Node: "n1", Attempts: 3}, now); got.action != row.want {
				t.Errorf("got %+v, want action %d", got, row.want)
			}
		})
	}
}

// inVolume gives a Checkpoint data in a claim, which a pod mounts if it has a UID.
func inVolume(c *v1alpha1.Checkpoint, pod types.UID) {
	c.Status.Storage = &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendPVC}
	c.Status.Volume = &v1alpha1.CheckpointVolume{ClaimName: "c", PodUID: pod}
	c.Status.Containers = []v1alpha1.ContainerCheckpoint{{Name: "main", Location: "pvc:c/1/main.ckpt"}}
}

func TestPausesGrowUpToTheMaximum(t *testing.T) {
	o := &Options{RetryStart: time.Second, RetryMax: 5 * time.Second}
	for failed, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second} {
		if got := o.backoff(int32(failed)); got != want {
			t.Errorf("after %d failures: got %s, want %s", failed, got, want)
		}
	}
}
