package volume

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

var now = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) *metav1.Time { at := metav1.NewTime(now.Add(-d)); return &at }

func TestDecide(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*state)
		want   action
		reason string
		says   string // a part of the message
	}{
		"other backends have no volume": {
			change: func(s *state) { s.checkpoint.Status.Storage = &v1alpha1.CheckpointStorage{Backend: "s3"} }, want: none,
		},
		"a Checkpoint that is not assigned has none yet": {
			change: func(s *state) { s.checkpoint.Status.NodeName, s.checkpoint.Status.Volume = "", nil }, want: none,
		},
		"names are recorded before anything exists": {
			change: func(s *state) { s.checkpoint.Status.Volume, s.claim, s.pod = nil, nil, nil }, want: recordNames,
		},
		"so is the finalizer": {
			change: func(s *state) { s.checkpoint.Finalizers, s.pod = []string{v1alpha1.Finalizer}, nil }, want: recordNames,
		},
		"the claim comes first": {change: func(s *state) { s.claim, s.pod, s.checkpoint.Status.Volume.PodUID = nil, nil, "" }, want: createClaim},
		"a claim of a size that no volume can have is not created": {
			change: func(s *state) {
				s.claim, s.pod, s.checkpoint.Status.Volume.PodUID = nil, nil, ""
				s.checkpoint.Status.Storage.PVCTemplate.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("10E")}
			},
			want: wait, reason: "StorageInvalid", says: "10E is too much",
		},
		"then comes the pod": {change: func(s *state) { s.pod, s.checkpoint.Status.Volume.PodUID = nil, "" }, want: createPod},
		"a pod that runs is recorded": {
			change: func(s *state) { s.checkpoint.Status.Volume.PodUID = "" }, want: recordMount,
		},
		"then the agent has its turn": {change: func(*state) {}, want: none},
		"a claim of the same name is not used": {
			change: func(s *state) { s.claim.OwnerReferences, s.pod = nil, nil; s.checkpoint.Status.Volume.PodUID = "" },
			want:   wait, reason: "StorageInvalid", says: "was not created for this Checkpoint",
		},
		"a claim of an earlier Checkpoint of the same name is not used": {
			change: func(s *state) {
				s.claim.OwnerReferences[0].UID, s.pod, s.checkpoint.Status.Volume.PodUID = "earlier", nil, ""
			},
			want: wait, reason: "StorageInvalid", says: "was not created for this Checkpoint",
		},
		"an existing claim is used whoever created it": {
			change: func(s *state) { existingClaim(s); s.pod, s.checkpoint.Status.Volume.PodUID = nil, "" }, want: createPod,
		},
		"an existing claim has to exist": {
			change: func(s *state) { existingClaim(s); s.claim, s.pod, s.checkpoint.Status.Volume.PodUID = nil, nil, "" },
			want:   wait, reason: "StorageInvalid", says: "team/data does not exist: create it",
		},
		"a claim that is being deleted cannot be mounted": {
			change: func(s *state) {
				existingClaim(s)
				s.claim.DeletionTimestamp, s.pod, s.checkpoint.Status.Volume.PodUID = ago(0), nil, ""
			},
			want: wait, reason: "StorageInvalid", says: "is being deleted",
		},
		"a block device is no file system": {
			change: func(s *state) {
				s.claim.Spec.VolumeMode, s.pod, s.checkpoint.Status.Volume.PodUID = ptr.To(corev1.PersistentVolumeBlock), nil, ""
			},
			want: wait, reason: "StorageInvalid", says: "volumeMode Block",
		},
		"a claim has to be writable": {
			change: func(s *state) {
				s.claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany}
				s.pod, s.checkpoint.Status.Volume.PodUID = nil, ""
			},
			want: wait, reason: "StorageInvalid", says: "ReadOnlyMany",
		},
		"a claim without its volume cannot be mounted": {
			change: func(s *state) {
				s.claim.Status.Phase, s.pod, s.checkpoint.Status.Volume.PodUID = corev1.ClaimLost, nil, ""
			},
			want: wait, reason: "StorageInvalid", says: "has lost its PersistentVolume pv",
		},
		"a pod of the same name is not used": {
			change: func(s *state) { pending(s); s.pod.OwnerReferences = nil; s.pod.Status.Phase = corev1.PodRunning },
			want:   wait, reason: "VolumePending", says: "was not created for this Checkpoint",
		},
		"a new pod is waited for": {
			change: func(s *state) { pending(s); s.pod.CreationTimestamp = *ago(time.Second) }, want: poll,
		},
		"the scheduler says why a pod stays pending": {
			change: func(s *state) {
				pending(s)
				s.pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "node has pod using PersistentVolumeClaim"}}
			},
			want: wait, reason: "VolumePending", says: "cannot be scheduled to node n1: node has pod using PersistentVolumeClaim",
		},
		"a claim that is used on another node is named": {
			change: func(s *state) { pending(s); s.trouble = "Multi-Attach error for volume" },
			want:   wait, reason: "VolumePending", says: "on node n1 waits for PersistentVolumeClaim checkpoint-1: Multi-Attach error",
		},
		"the runtime says why a container does not start": {
			change: func(s *state) {
				pending(s)
				s.pod.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "not found"}}}}
			},
			want: wait, reason: "VolumePending", says: "does not start: ErrImagePull: not found",
		},
		"without a known trouble the pod is waited for": {change: pending, want: poll},
		"a pod that was evicted is replaced":            {change: func(s *state) { pending(s); s.pod.Status.Phase = corev1.PodFailed }, want: deletePod},
		"a pod that is being deleted is waited for":     {change: func(s *state) { pending(s); s.pod.DeletionTimestamp = ago(0) }, want: poll},
		"a pod of another node is replaced": {
			change: func(s *state) { pending(s); s.pod.Spec.NodeName = "n2"; s.pod.Status.Phase = corev1.PodRunning }, want: deletePod,
		},
		"a mounted volume whose pod goes is not mounted any more": {
			change: func(s *state) { s.pod.DeletionTimestamp = ago(0) }, want: recordUnmount,
		},
		"neither is one whose pod is gone": {change: func(s *state) { s.pod = nil }, want: recordUnmount},
		"nor one whose pod has failed":     {change: func(s *state) { s.pod.Status.Phase = corev1.PodFailed }, want: recordUnmount},
		"another pod of ours is recorded":  {change: func(s *state) { s.pod.UID = "p2" }, want: recordMount},

		"that the node has no agent is not contradicted": {
			change: func(s *state) {
				pending(s)
				s.trouble = "Multi-Attach error"
				s.checkpoint.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonNoAgent}}
			}, want: poll,
		},

		"a pod that is gone before the first attempt ends the Checkpoint": {
			change: func(s *state) { pending(s); s.target = nil },
			want:   fail, reason: "PodGone", says: "pod team/web was deleted before the volume",
		},
		"so does one that was replaced": {
			change: func(s *state) { pending(s); s.target.UID = "other" },
			want:   fail, reason: "SourcePodReplaced",
		},
		"after an attempt its dump may still be stored": {
			change: func(s *state) { pending(s); s.target, s.checkpoint.Status.Attempts = nil, 1 }, want: poll,
		},

		"a ready Checkpoint needs no pod":     {change: ready, want: deletePod},
		"it waits until the pod is gone":      {change: func(s *state) { ready(s); s.pod.DeletionTimestamp = ago(time.Hour) }, want: poll},
		"that is recorded":                    {change: func(s *state) { ready(s); s.pod = nil }, want: finish},
		"a foreign pod stays":                 {change: func(s *state) { ready(s); s.pod.OwnerReferences = nil }, want: finish},
		"then nothing is left to be done":     {change: func(s *state) { ready(s); s.checkpoint.Status.Volume.PodName = "" }, want: none},
		"a failed Checkpoint needs no pod":    {change: failed, want: deletePod},
		"a failed Checkpoint needs no claim":  {change: func(s *state) { failed(s); s.pod = nil }, want: deleteClaim},
		"an existing claim stays":             {change: func(s *state) { existingClaim(s); failed(s); s.pod = nil }, want: finish},
		"a foreign claim stays":               {change: func(s *state) { failed(s); s.pod, s.claim.OwnerReferences = nil, nil }, want: finish},
		"a claim that is being deleted is on": {change: func(s *state) { failed(s); s.pod = nil; s.claim.DeletionTimestamp = ago(time.Hour) }, want: poll},
		"a failed Checkpoint without a claim is done": {
			change: func(s *state) {
				failed(s)
				s.checkpoint.Status.Volume.PodName, s.checkpoint.Status.Volume.ClaimName = "", ""
			}, want: none,
		},

		"the agent first removes its finalizer": {change: deleted, want: none},
		"then the pod goes":                     {change: func(s *state) { deleted(s); withoutData(s) }, want: deletePod},
		"and the claim":                         {change: func(s *state) { deleted(s); withoutData(s); s.pod = nil }, want: deleteClaim},
		"the claim does not wait for the pod":   {change: func(s *state) { deleted(s); withoutData(s); s.pod.DeletionTimestamp = ago(0) }, want: deleteClaim},
		"and then our finalizer":                {change: func(s *state) { deleted(s); withoutData(s); s.pod, s.claim = nil, nil }, want: finish},
		"a claim that somebody uses is named": {
			change: func(s *state) {
				deleted(s)
				withoutData(s)
				s.pod, s.claim.DeletionTimestamp = nil, ago(time.Minute)
			},
			want: wait, reason: "Deleting", says: "a pod still uses it",
		},
		"unless its data are abandoned": {
			change: func(s *state) {
				deleted(s)
				withoutData(s)
				s.pod, s.claim.DeletionTimestamp = nil, ago(time.Minute)
				s.checkpoint.Annotations = map[string]string{v1alpha1.AnnAbandonData: "true"}
			}, want: finish,
		},
		"without our finalizer there is nothing of ours": {change: func(s *state) { deleted(s); s.checkpoint.Finalizers = nil }, want: none},

		"to delete data from an existing claim it is mounted again": {
			change: func(s *state) {
				existingClaim(s)
				deleted(s)
				s.pod, s.checkpoint.Status.Volume.PodName, s.checkpoint.Status.Volume.PodUID = nil, "", ""
			}, want: recordNames,
		},
		"by a pod": {
			change: func(s *state) { existingClaim(s); deleted(s); s.pod, s.checkpoint.Status.Volume.PodUID = nil, "" }, want: createPod,
		},
		"then the agent deletes them":                {change: func(s *state) { existingClaim(s); deleted(s) }, want: none},
		"if the claim is gone, so are the data":      {change: func(s *state) { existingClaim(s); deleted(s); s.claim, s.pod = nil, nil }, want: forgetData},
		"another claim of the name has none of them": {change: func(s *state) { existingClaim(s); deleted(s); s.claim.UID = "other" }, want: forgetData},
		"a claim that is being deleted takes them with it": {
			change: func(s *state) { existingClaim(s); deleted(s); s.pod, s.claim.DeletionTimestamp = nil, ago(0) }, want: forgetData,
		},
		"without data the claim is not mounted": {
			change: func(s *state) { existingClaim(s); deleted(s); s.checkpoint.Status.Containers[0].Location = "" }, want: none,
		},
		"an existing claim stays when its data are deleted": {
			change: func(s *state) { existingClaim(s); deleted(s); withoutData(s); s.pod = nil }, want: finish,
		},
		"what a deletion waits for says how to go without": {
			change: func(s *state) { existingClaim(s); deleted(s); pending(s); s.trouble = "Multi-Attach error" },
			want:   wait, reason: "Deleting", says: "checkpoint.example.com/abandon-data=true",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := mounted()
			row.change(s)
			got := decide(s)
			if got.action != row.want || got.reason != row.reason || !strings.Contains(got.message, row.says) {
				t.Errorf("got %+v, want action %d with reason %q and a message with %q", got, row.want, row.reason, row.says)
			}
			if got.action == wait && got.waitingFor == "" {
				t.Error("nobody is said to act next")
			}
		})
	}
}

// mounted is the state of a Checkpoint whose own claim is mounted.
func mounted() *state {
	c := &v1alpha1.Checkpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "c", UID: "1", Finalizers: []string{v1alpha1.Finalizer, v1alpha1.FinalizerVolume}},
		Spec:       v1alpha1.CheckpointSpec{Target: v1alpha1.CheckpointTarget{PodName: "web"}},
		Status: v1alpha1.CheckpointStatus{
			NodeName: "n1", SourceNode: "n1", PodUID: "web-1",
			Storage: &v1alpha1.CheckpointStorage{Backend: "pvc", PVCTemplate: &v1alpha1.PVCTemplate{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			}},
			Volume:     &v1alpha1.CheckpointVolume{ClaimName: "checkpoint-1", PodName: "checkpoint-1", PodUID: "p1", ClaimUID: "c1", VolumeName: "pv"},
			Containers: []v1alpha1.ContainerCheckpoint{{Name: "main", Location: "pvc:checkpoint-1/1/main.ckpt"}},
		},
	}
	claim := newClaim(c)
	claim.UID, claim.Spec.VolumeName, claim.Status.Phase = "c1", "pv", corev1.ClaimBound
	pod := newPod(c, &Program{Image: "holdfast"})
	pod.UID, pod.Spec.NodeName, pod.Status.Phase, pod.CreationTimestamp = "p1", "n1", corev1.PodRunning, *ago(time.Hour)
	target := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "web", UID: types.UID("web-1")}}
	return &state{checkpoint: c, claim: claim, pod: pod, target: target, now: now}
}

// pending makes a state one in which the pod has been pending for long.
func pending(s *state) {
	s.checkpoint.Status.Volume.PodUID, s.pod.Spec.NodeName, s.pod.Status.Phase = "", "", corev1.PodPending
}

// existingClaim makes a state one of a Checkpoint that names a claim.
func existingClaim(s *state) {
	s.checkpoint.Status.Storage.PVCTemplate, s.checkpoint.Status.Storage.PVC = nil, &v1alpha1.PVCStorage{ClaimName: "data"}
	s.checkpoint.Status.Volume.ClaimName, s.claim.Name, s.claim.OwnerReferences = "data", "data", nil
}

func ready(s *state) {
	s.checkpoint.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue}}
}

func failed(s *state) {
	s.checkpoint.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionFailed, Status: metav1.ConditionTrue}}
}

func deleted(s *state) { s.checkpoint.DeletionTimestamp = ago(time.Hour) }

// withoutData makes a state one in which the agent has removed its finalizer.
func withoutData(s *state) { s.checkpoint.Finalizers = []string{v1alpha1.FinalizerVolume} }
