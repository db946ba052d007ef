package checkpoint

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

func TestDecide(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*state)
		want   action
		reason string
		says   string // a part of the message
	}{
		"a running container on a node with an agent is assigned": {
			change: func(*state) {}, want: assign,
		},
		"a policy that does not exist is waited for": {
			change: func(s *state) { s.checkpoint.Spec.PolicyRef = "none" },
			want:   wait, reason: "PolicyNotFound", says: `CheckpointPolicy "none" does not exist`,
		},
		"a policy gives the storage": {
			change: func(s *state) {
				s.checkpoint.Spec.PolicyRef, s.checkpoint.Spec.Storage = "p", nil
				s.policy = &v1alpha1.CheckpointPolicy{Spec: v1alpha1.CheckpointPolicySpec{Storage: &v1alpha1.CheckpointStorage{Backend: "local"}}}
			},
			want: assign,
		},
		"without any storage the policy has to be completed": {
			change: func(s *state) {
				s.checkpoint.Spec.PolicyRef, s.checkpoint.Spec.Storage = "p", nil
				s.policy = &v1alpha1.CheckpointPolicy{}
			},
			want: wait, reason: "StorageInvalid", says: `"p" has no storage`,
		},
		"another namespace has to grant the reference": {
			change: func(s *state) { s.checkpoint.Spec.Target.Namespace, s.granted = "other", false },
			want:   wait, reason: "ReferenceNotGranted", says: "in namespace other lets Checkpoints of namespace team",
		},
		"a pod that does not exist is waited for": {
			change: func(s *state) { s.pod = nil },
			want:   wait, reason: "PodGone", says: "pod team/web does not exist",
		},
		"a pod that has ended never runs again": {
			change: func(s *state) { s.pod.Status.Phase = corev1.PodSucceeded },
			want:   fail, reason: "ContainerNotRunning",
		},
		"a pod that is being deleted is not checkpointed": {
			change: func(s *state) { now := metav1.Now(); s.pod.DeletionTimestamp = &now },
			want:   fail, reason: "ContainerNotRunning",
		},
		"a container that is not there fails": {
			change: func(s *state) { s.checkpoint.Spec.Target.ContainerName = "db" },
			want:   fail, reason: "ContainerUnknown", says: "has no container db: it has main, log",
		},
		"a container that waits to run is waited for": {
			change: func(s *state) { s.pod.Status.ContainerStatuses[0].State = corev1.ContainerState{} },
			want:   wait, reason: "ContainerNotRunning", says: "container main",
		},
		"of all containers each has to run": {
			change: func(s *state) {
				s.checkpoint.Spec.Target.ContainerName = "*"
				s.pod.Status.InitContainerStatuses[0].State = corev1.ContainerState{}
			},
			want: wait, reason: "ContainerNotRunning", says: "container log",
		},
		"a node without an agent is waited for": {
			change: func(s *state) { s.agent = nil },
			want:   wait, reason: "NodeHasNoAgent", says: "apply deploy/checkpoint-operator.yaml",
		},
		"a node that cannot make checkpoints is waited for": {
			change: func(s *state) {
				s.agent.Status.Conditions[0] = metav1.Condition{Type: "Ready", Status: "False", Reason: "RuntimeNotReady", Message: "criu is missing"}
			},
			want: wait, reason: "RuntimeNotReady", says: "node n1 cannot make checkpoints: criu is missing",
		},
		"an agent that has not reported is waited for": {
			change: func(s *state) { s.agent.Status.Conditions = nil },
			want:   wait, reason: "NodeHasNoAgent", says: "has not reported yet",
		},
		"an assigned Checkpoint is the agent's": {
			change: func(s *state) { s.checkpoint.Status.NodeName, s.pod = "n1", nil }, want: none,
		},
		"an assigned Checkpoint whose node is gone fails": {
			change: func(s *state) { s.checkpoint.Status.NodeName, s.agent = "n1", nil },
			want:   fail, reason: "NodeLost",
		},
		"an assigned Checkpoint whose node has lost its agent is waited for": {
			change: func(s *state) { s.checkpoint.Status.NodeName, s.agent, s.nodeExists = "n1", nil, true },
			want:   wait, reason: "NodeHasNoAgent", says: "node n1 has no checkpoint agent any more",
		},
		"a deleted Checkpoint waits for the agent of a node that exists": {
			change: func(s *state) { deleted(s); s.agent, s.nodeExists, s.otherAgent = nil, true, "n2" },
			want:   wait, reason: "NodeHasNoAgent", says: "checkpoint.example.com/abandon-data=true",
		},
		"a ready Checkpoint stays although its node is gone": {
			change: func(s *state) {
				s.checkpoint.Status.NodeName, s.agent = "n1", nil
				s.checkpoint.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: "True"}}
			},
			want: none,
		},
		"a failed Checkpoint is not tried again": {
			change: func(s *state) {
				s.checkpoint.Status.Conditions = []metav1.Condition{{Type: "Failed", Status: "True"}}
			},
			want: none,
		},
		"a deleted Checkpoint without data goes": {
			change: func(s *state) { deleted(s); s.checkpoint.Status.NodeName = "" }, want: release,
		},
		"the agent deletes the data of a deleted Checkpoint": {
			change: deleted, want: none,
		},
		"another node deletes the data if the node is gone": {
			change: func(s *state) {
				deleted(s)
				s.agent, s.otherAgent = nil, "n2"
				s.checkpoint.Status.Storage.Backend = "s3"
			},
			want: reassign,
		},
		"data in a claim of the Checkpoint's own need no node": {
			change: func(s *state) {
				deleted(s)
				s.agent = nil
				s.checkpoint.Status.Storage = &v1alpha1.CheckpointStorage{Backend: "pvc", PVCTemplate: &v1alpha1.PVCTemplate{}}
			},
			want: release,
		},
		"data on a node that is gone are left behind only when told": {
			change: func(s *state) { deleted(s); s.agent, s.otherAgent = nil, "n2" },
			want:   wait, reason: "NodeLost", says: "checkpoint.example.com/abandon-data=true",
		},
		"data that no node can delete are left behind only when told": {
			change: func(s *state) {
				deleted(s)
				s.agent = nil
				s.checkpoint.Status.Storage.Backend = "s3"
			},
			want: wait, reason: "NodeHasNoAgent", says: "checkpoint.example.com/abandon-data=true",
		},
		"a Checkpoint goes without its data when told": {
			change: func(s *state) {
				deleted(s)
				s.agent = nil
				s.checkpoint.Annotations = map[string]string{"checkpoint.example.com/abandon-data": "true"}
			},
			want: release,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := runningPod()
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

func TestContainers(t *testing.T) {
	for name, row := range map[string]struct {
		container string
		want      string
	}{
		"the first one by default":                      {"", "main"},
		"one by its name":                               {"log", "log"},
		"all that run as long as the pod, sidecars too": {"*", "main log"},
	} {
		t.Run(name, func(t *testing.T) {
			s := runningPod()
			s.checkpoint.Spec.Target.ContainerName = row.container
			if got := strings.Join(decide(s).containers, " "); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

// deleted makes a state one of an assigned Checkpoint that is deleted.
func deleted(s *state) {
	now := metav1.Now()
	s.checkpoint.DeletionTimestamp, s.checkpoint.Finalizers = &now, []string{v1alpha1.Finalizer}
	s.checkpoint.Status.NodeName, s.checkpoint.Status.Storage = "n1", s.checkpoint.Spec.Storage.DeepCopy()
}

// runningPod is the state of a new Checkpoint that can be assigned.
func runningPod() *state {
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	return &state{
		checkpoint: &v1alpha1.Checkpoint{
			ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "c"},
			Spec: v1alpha1.CheckpointSpec{
				Target:  v1alpha1.CheckpointTarget{PodName: "web"},
				Storage: &v1alpha1.CheckpointStorage{Backend: "local"},
			},
		},
		granted: true,
		pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "web"},
			Spec: corev1.PodSpec{
				NodeName:   "n1",
				Containers: []corev1.Container{{Name: "main"}},
				InitContainers: []corev1.Container{
					{Name: "setup"}, {Name: "log", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)},
				},
			},
			Status: corev1.PodStatus{
				Phase:                 corev1.PodRunning,
				ContainerStatuses:     []corev1.ContainerStatus{{Name: "main", State: running}},
				InitContainerStatuses: []corev1.ContainerStatus{{Name: "log", State: running}},
			},
		},
		agent: &v1alpha1.CheckpointNode{
			ObjectMeta: metav1.ObjectMeta{Name: "n1"},
			Status:     v1alpha1.CheckpointNodeStatus{Conditions: []metav1.Condition{{Type: "Ready", Status: "True"}}},
		},
	}
}
