package restore

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

var now = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// A target is a container of the Checkpoint, main, in a state.
func target(change func(*container)) *container {
	c := &container{name: "main", target: true}
	change(c)
	return c
}

func valid() *ticket.Ticket {
	return &ticket.Ticket{Request: "c-1", Decision: ticket.Restore, Expires: now.Add(time.Minute)}
}

func TestDecide(t *testing.T) {
	settled := func(s *state) {
		s.pod.Annotations = map[string]string{v1alpha1.AnnotationObservedRestoreFrom: "c-1"}
	}
	tests := map[string]struct {
		container *container
		change    func(*state)
		want      action
		reason    string
	}{
		"a pod without a request has nothing":                    {target(func(*container) {}), func(s *state) { s.request = "" }, forget, ""},
		"a request whose outcome is on record is not done twice": {target(func(c *container) { c.runningID = "a" }), settled, settle, ""},
		"another value asks again": {target(func(c *container) { c.runningID = "a" }), func(s *state) {
			settled(s)
			s.request = "c-2"
		}, stage, ""},
		"a Checkpoint that is not ready yet is waited for": {target(func(*container) {}), func(s *state) {
			s.problem = &problem{reason: v1alpha1.ReasonCheckpointNotReady, temporary: true}
		}, postpone, v1alpha1.ReasonCheckpointNotReady},
		"what forbids a restore is reported before anything is touched": {target(func(c *container) { c.runningID = "a" }), func(s *state) {
			s.problem = &problem{reason: v1alpha1.ReasonRestartForbidden}
		}, fail, v1alpha1.ReasonRestartForbidden},
		"a container without a ticket needs its data":               {target(func(*container) {}), nil, stage, ""},
		"a running container is not stopped before it has a ticket": {target(func(c *container) { c.runningID = "a" }), nil, stage, ""},
		"a running container with a ticket is stopped": {target(func(c *container) {
			c.runningID, c.issued = "a", valid()
		}), nil, stop, ""},
		"a container that does not run is started by the kubelet": {target(func(c *container) { c.issued = valid() }), nil, await, ""},
		"a ticket that has expired is issued anew": {target(func(c *container) {
			c.issued = valid()
			c.issued.Expires = now.Add(-time.Second)
		}), nil, reissue, ""},
		"a wrapper that works is waited for": {target(func(c *container) { c.claimed, c.inUse = valid(), true }), nil, await, ""},
		"a container that runs with a claimed ticket is not stopped: it may be the restored one": {target(func(c *container) {
			c.runningID, c.claimed, c.inUse = "b", valid(), true
		}), nil, await, ""},
		"a wrapper that died has restored nothing, and its ticket is issued anew": {target(func(c *container) { c.claimed = valid() }), nil, reissue, ""},
		"a container that may start again is not stopped: the cache lags behind the outcome": {target(func(c *container) {
			c.runningID, c.issued = "b", &ticket.Ticket{Request: "c-1", Decision: ticket.StartFresh}
		}), nil, await, ""},
		"a restored container is the end of it": {target(func(c *container) {
			c.claimed, c.outcome, c.reported = valid(), &ticket.Outcome{ContainerID: "b"}, true
		}), nil, succeed, ""},
		"a restored container that the kubelet has not reported yet is waited for": {target(func(c *container) {
			c.claimed, c.outcome = valid(), &ticket.Outcome{ContainerID: "b", Ended: now.Add(-time.Second)}
		}), nil, await, ""},
		"a restored container that the kubelet never reports was deleted, and is restored again": {target(func(c *container) {
			c.claimed, c.outcome = valid(), &ticket.Outcome{ContainerID: "b", Ended: now.Add(-time.Hour)}
		}), nil, reissue, ""},
		"a ticket whose data are gone is withdrawn, and they are fetched again": {target(func(c *container) {
			c.runningID, c.issued, c.lost = "a", valid(), true
		}), nil, stage, ""},
		"a wrapper that works is waited for, also without data": {target(func(c *container) { c.claimed, c.inUse, c.lost = valid(), true, true }), nil, await, ""},
		"a restore that has failed for want of its data is repeated with them": {target(func(c *container) {
			c.claimed, c.lost, c.outcome = valid(), true, &ticket.Outcome{Error: "not whole", Incompatible: true}
		}), nil, stage, ""},
		"a restored container that the kubelet has not reported yet needs no data": {target(func(c *container) {
			c.claimed, c.lost, c.outcome = valid(), true, &ticket.Outcome{ContainerID: "b", Ended: now.Add(-time.Second)}
		}), nil, await, ""},
		"a restored container that was deleted with its data needs them again": {target(func(c *container) {
			c.claimed, c.lost, c.outcome = valid(), true, &ticket.Outcome{ContainerID: "b", Ended: now.Add(-time.Hour)}
		}), nil, stage, ""},
		"a restored container is not stopped": {target(func(c *container) {
			c.runningID, c.claimed, c.outcome, c.reported = "b", valid(), &ticket.Outcome{ContainerID: "b"}, true
		}), nil, succeed, ""},
		"a restore that has failed is not repeated": {target(func(c *container) {
			c.claimed, c.outcome = valid(), &ticket.Outcome{Error: "CRIU"}
		}), nil, fail, v1alpha1.ReasonRestoreFailed},
		"a restore that was interrupted is repeated": {target(func(c *container) {
			c.claimed, c.outcome = valid(), &ticket.Outcome{Error: "killed", Interrupted: true}
		}), nil, reissue, ""},
		"a restore that has failed is repeated if the policy says so": {target(func(c *container) {
			c.claimed, c.outcome = valid(), &ticket.Outcome{Error: "CRIU"}
		}), func(s *state) { s.policy.OnFailure = v1alpha1.OnFailureRetry }, reissue, ""},
		"a restore that can never succeed is not repeated, whatever the policy says": {target(func(c *container) {
			c.claimed, c.outcome = valid(), &ticket.Outcome{Error: "mounts", Incompatible: true}
		}), func(s *state) { s.policy.OnFailure = v1alpha1.OnFailureRetry }, fail, v1alpha1.ReasonIncompatible},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &state{pod: &corev1.Pod{}, request: "c-1", checkpoint: &v1alpha1.Checkpoint{},
				containers: []*container{tt.container, {name: "sidecar", runningID: "s"}}}
			if tt.change != nil {
				tt.change(s)
			}
			got := decide(s, now)
			if got.action != tt.want {
				t.Errorf("decide() = %d, want %d", got.action, tt.want)
			}
			if tt.reason != "" && (got.problem == nil || got.problem.reason != tt.reason) {
				t.Errorf("decide() has the problem %+v, want the reason %s", got.problem, tt.reason)
			}
			for _, c := range got.containers {
				if !c.target {
					t.Errorf("container %s is not in the Checkpoint, and was chosen", c.name)
				}
			}
		})
	}
}

func TestDecideOfSeveralContainers(t *testing.T) {
	restored := func(name string) *container {
		return &container{name: name, target: true, claimed: valid(), outcome: &ticket.Outcome{ContainerID: name}, reported: true}
	}
	s := &state{pod: &corev1.Pod{}, request: "c-1", checkpoint: &v1alpha1.Checkpoint{}, containers: []*container{
		restored("a"), {name: "b", target: true, runningID: "b", issued: valid()},
	}}
	if got := decide(s, now); got.action != stop || len(got.containers) != 1 || got.containers[0].name != "b" {
		t.Errorf("decide() = %+v, want that b alone is stopped", got)
	}
	s.containers[1] = restored("b")
	if got := decide(s, now); got.action != succeed {
		t.Errorf("decide() = %+v, want success", got)
	}
	s.containers[1].outcome.Error = "CRIU"
	if got := decide(s, now); got.action != fail {
		t.Errorf("decide() = %+v, want that one failure fails all", got)
	}
}

func TestDecisionAfter(t *testing.T) {
	again, failed := &ticket.Ticket{Decision: ticket.Restore, Again: true}, &ticket.Outcome{Error: "CRIU"}
	always := v1alpha1.RestoreOptions{OnRestart: v1alpha1.OnRestartRestore}
	tests := map[string]struct {
		container container
		restored  bool
		policy    v1alpha1.RestoreOptions
		want      ticket.Decision
	}{
		"a container that was restored again is restored again":    {container{target: true, claimed: again, outcome: &ticket.Outcome{}}, true, always, ticket.Restore},
		"a container that cannot be restored again does not start": {container{target: true, claimed: again, outcome: failed}, true, always, ticket.Fail},
		"what becomes of one container is not that of another one": {container{target: true, runningID: "b", claimed: again}, false, always, ticket.Restore},
		"an interrupted restore is repeated":                       {container{target: true, claimed: again, outcome: &ticket.Outcome{Error: "killed", Interrupted: true}}, true, always, ticket.Restore},
		"a container that cannot be restored again is tried again if the policy says so": {container{target: true, claimed: again, outcome: failed}, true,
			v1alpha1.RestoreOptions{OnRestart: v1alpha1.OnRestartRestore, OnFailure: v1alpha1.OnFailureRetry}, ticket.Restore},
		"a container that cannot be restored again starts afresh if the policy says so": {container{target: true, claimed: again, outcome: failed}, true,
			v1alpha1.RestoreOptions{OnRestart: v1alpha1.OnRestartRestore, OnFailure: v1alpha1.OnFailureStartFresh}, ticket.StartFresh},
		"a restored container starts afresh if it ends": {container{target: true, runningID: "b"}, true, v1alpha1.RestoreOptions{}, ticket.StartFresh},
		"a restored container is restored again if the policy says so": {container{target: true, runningID: "b"}, true,
			v1alpha1.RestoreOptions{OnRestart: v1alpha1.OnRestartRestore}, ticket.Restore},
		"a container that is not in the Checkpoint starts afresh": {container{runningID: "b"}, true,
			v1alpha1.RestoreOptions{OnRestart: v1alpha1.OnRestartRestore}, ticket.StartFresh},
		"a container that was not touched starts afresh if it ends later": {container{target: true, runningID: "a"}, false, v1alpha1.RestoreOptions{}, ticket.StartFresh},
		"a container that could not be restored does not start":           {container{target: true}, false, v1alpha1.RestoreOptions{}, ticket.Fail},
		"a container that could not be restored starts afresh if the policy says so": {container{target: true}, false,
			v1alpha1.RestoreOptions{OnFailure: v1alpha1.OnFailureStartFresh}, ticket.StartFresh},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &state{policy: tt.policy, checkpoint: &v1alpha1.Checkpoint{}}
			if got := s.decisionAfter(&tt.container, tt.restored); got != tt.want {
				t.Errorf("decisionAfter() = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestCheckNode(t *testing.T) {
	there := &v1alpha1.Environment{Architecture: "amd64"}
	tests := map[string]struct {
		backend v1alpha1.Backend
		source  string
		here    *v1alpha1.Environment
		reason  string
	}{
		"the same environment":                                 {v1alpha1.BackendS3, "n2", there, ""},
		"another environment":                                  {v1alpha1.BackendS3, "n2", &v1alpha1.Environment{Architecture: "arm64"}, v1alpha1.ReasonIncompatible},
		"the data of another node":                             {v1alpha1.BackendLocal, "n2", there, v1alpha1.ReasonDataElsewhere},
		"the data of this node":                                {v1alpha1.BackendLocal, "n1", there, ""},
		"an agent that does not know yet what the node can do": {v1alpha1.BackendS3, "n1", nil, v1alpha1.ReasonNoAgent},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := &v1alpha1.Checkpoint{Status: v1alpha1.CheckpointStatus{
				Storage: &v1alpha1.CheckpointStorage{Backend: tt.backend}, SourceNode: tt.source, Environment: there,
			}}
			p := checkNode(&state{checkpoint: c}, tt.here, "n1")
			if (p == nil) != (tt.reason == "") || p != nil && p.reason != tt.reason {
				t.Errorf("checkNode() = %+v, want the reason %q", p, tt.reason)
			}
		})
	}
}

func TestCheckContainers(t *testing.T) {
	running := []corev1.ContainerStatus{{Name: "main", Image: "app:2", ImageID: "registry/app@sha256:22", ContainerID: "containerd://a",
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	tests := map[string]struct {
		policy   corev1.RestartPolicy
		statuses []corev1.ContainerStatus
		of       v1alpha1.ContainerCheckpoint
		reason   string
		claimed  *ticket.Ticket
	}{
		"a running container that the kubelet starts again":          {corev1.RestartPolicyAlways, running, v1alpha1.ContainerCheckpoint{Name: "main"}, "", nil},
		"a running container that starts again only after a failure": {corev1.RestartPolicyOnFailure, running, v1alpha1.ContainerCheckpoint{Name: "main"}, "", nil},
		"a running container that is not started again":              {corev1.RestartPolicyNever, running, v1alpha1.ContainerCheckpoint{Name: "main"}, v1alpha1.ReasonRestartForbidden, nil},
		"a restored container that runs is not started again":        {corev1.RestartPolicyNever, running, v1alpha1.ContainerCheckpoint{Name: "main"}, "", valid()},
		"a container that has not started, and is started once":      {corev1.RestartPolicyNever, nil, v1alpha1.ContainerCheckpoint{Name: "main"}, "", nil},
		"a container that the pod does not have":                     {corev1.RestartPolicyAlways, running, v1alpha1.ContainerCheckpoint{Name: "other"}, v1alpha1.ReasonIncompatible, nil},
		"another image":                                              {corev1.RestartPolicyAlways, running, v1alpha1.ContainerCheckpoint{Name: "main", ImageDigest: "registry/app@sha256:11"}, v1alpha1.ReasonIncompatible, nil},
		"the same image from another registry":                       {corev1.RestartPolicyAlways, running, v1alpha1.ContainerCheckpoint{Name: "main", ImageDigest: "mirror/app@sha256:22"}, "", nil},
		"a digest of another kind cannot be compared":                {corev1.RestartPolicyAlways, running, v1alpha1.ContainerCheckpoint{Name: "main", ImageDigest: "sha256:11"}, "", nil},
		"another image that the new pod names by its digest":         {corev1.RestartPolicyAlways, nil, v1alpha1.ContainerCheckpoint{Name: "main", ImageDigest: "registry/app@sha256:11"}, v1alpha1.ReasonIncompatible, nil},
		"the image that the new pod names by its digest":             {corev1.RestartPolicyAlways, nil, v1alpha1.ContainerCheckpoint{Name: "main", ImageDigest: "registry/app@sha256:33"}, "", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &state{
				pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"},
					Spec:   corev1.PodSpec{RestartPolicy: tt.policy, Containers: []corev1.Container{{Name: "main", Image: "app@sha256:33"}}},
					Status: corev1.PodStatus{ContainerStatuses: tt.statuses}},
				checkpoint: &v1alpha1.Checkpoint{Status: v1alpha1.CheckpointStatus{Containers: []v1alpha1.ContainerCheckpoint{tt.of}}},
			}
			s.containers = []*container{{name: "main", target: true, runningID: runningID(s.pod, "main"), claimed: tt.claimed}}
			p := checkContainers(s)
			if (p == nil) != (tt.reason == "") || p != nil && p.reason != tt.reason {
				t.Errorf("checkContainers() = %+v, want the reason %q", p, tt.reason)
			}
			s.policy.Match = v1alpha1.MatchCompatible
			if p := checkContainers(s); p != nil && strings.Contains(p.message, "image") {
				t.Errorf("a policy that permits differences does not permit another image: %+v", p)
			}
		})
	}
}

// The wrapper imports nothing of Kubernetes, so the name of the annotation stands there, too.
func TestTheWrapperKnowsTheAnnotation(t *testing.T) {
	if ticket.Annotation != v1alpha1.AnnotationRestoreFrom {
		t.Errorf("the wrapper looks for %s, and the agent for %s", ticket.Annotation, v1alpha1.AnnotationRestoreFrom)
	}
}

func TestIsReported(t *testing.T) {
	started := metav1.NewTime(now)
	ended := func(id string, at metav1.Time) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: "containerd://" + id, StartedAt: at}}
	}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}}
	tests := map[string]struct {
		status corev1.ContainerStatus
		want   bool
	}{
		"a container that runs":                 {corev1.ContainerStatus{ContainerID: "containerd://a", State: running}, true},
		"another one that runs":                 {corev1.ContainerStatus{ContainerID: "containerd://b", State: running}, false},
		"one that is created":                   {corev1.ContainerStatus{ContainerID: "containerd://a", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}}, false},
		"one that has ended":                    {corev1.ContainerStatus{ContainerID: "containerd://a", State: ended("a", started)}, true},
		"one that was never started":            {corev1.ContainerStatus{ContainerID: "containerd://a", State: ended("a", metav1.Unix(0, 0))}, false},
		"one that has ended before another one": {corev1.ContainerStatus{ContainerID: "containerd://b", State: running, LastTerminationState: ended("a", started)}, true},
		"one before it that was never started":  {corev1.ContainerStatus{ContainerID: "containerd://b", State: running, LastTerminationState: ended("a", metav1.Time{})}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.status.Name = "main"
			pod := &corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{tt.status}}}
			if got := isReported(pod, "main", "a"); got != tt.want {
				t.Errorf("isReported() = %v, want %v", got, tt.want)
			}
		})
	}
}
