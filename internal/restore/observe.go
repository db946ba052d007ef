package restore

import (
	"context"
	"errors"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// observe reads what decide has to know. The Checkpoint is read only while it matters.
func (r *Reconciler) observe(ctx context.Context, pod *corev1.Pod) (*state, error) {
	s := &state{pod: pod, request: pod.Annotations[v1alpha1.AnnotationRestoreFrom]}
	if s.request == "" {
		return s, nil
	}
	for _, name := range containerNames(pod) {
		c, err := r.observeContainer(s, name)
		if err != nil {
			return nil, err
		}
		s.containers = append(s.containers, c)
	}
	if s.isSettled() && !slices.ContainsFunc(s.containers, func(c *container) bool { return c.isUnsettled(isRestored(pod)) || c.again() != nil }) {
		return s, nil // Nothing is left to do that the Checkpoint matters for.
	}
	if err := r.observeCheckpoint(ctx, s); err != nil {
		return nil, err
	}
	return s, nil
}

// observeCheckpoint reads the Checkpoint, and compares it with the pod while the request is
// open.
func (r *Reconciler) observeCheckpoint(ctx context.Context, s *state) error {
	if err := r.lookUp(ctx, s); err != nil || s.checkpoint == nil {
		return err
	}
	for _, c := range s.containers {
		c.target = slices.ContainsFunc(s.checkpoint.Status.Containers,
			func(of v1alpha1.ContainerCheckpoint) bool { return of.Name == c.name })
	}
	if s.problem != nil || s.isSettled() {
		return nil
	}
	var err error
	s.problem, err = r.check(ctx, s)
	return err
}

// containerNames returns the names of all containers of a pod: the wrapper asks for a ticket
// of each.
func containerNames(pod *corev1.Pod) []string {
	var names []string
	for i := range pod.Spec.InitContainers {
		names = append(names, pod.Spec.InitContainers[i].Name)
	}
	for i := range pod.Spec.Containers {
		names = append(names, pod.Spec.Containers[i].Name)
	}
	for i := range pod.Spec.EphemeralContainers {
		names = append(names, pod.Spec.EphemeralContainers[i].Name)
	}
	return names
}

func (r *Reconciler) observeContainer(s *state, name string) (*container, error) {
	place, err := ticket.At(r.options.Dir, string(s.pod.UID), name)
	if err != nil {
		return nil, err
	}
	c := &container{name: name, place: place, runningID: runningID(s.pod, name)}
	if c.issued, err = ofRequest(s.request, place.Ticket); err != nil {
		return nil, err
	}
	if c.claimed, err = ofRequest(s.request, place.Claimed); err != nil {
		return nil, err
	}
	c.target = isRestore(c.issued) || isRestore(c.claimed) // This is known when the Checkpoint is gone, too.
	c.lost = c.target && !place.HasData()
	if c.claimed == nil {
		return c, nil
	}
	return c, c.observeClaim(s.pod)
}

// observeClaim reads what became of the claimed ticket.
func (c *container) observeClaim(pod *corev1.Pod) (err error) {
	// In this order: the wrapper gives up its claim after it has recorded the outcome.
	if c.inUse, err = c.place.IsClaimInUse(); err != nil {
		return err
	}
	if c.outcome, err = c.place.Outcome(); err != nil && !errors.Is(err, ticket.ErrNone) {
		return err
	}
	c.reported = c.outcome != nil && isReported(pod, c.name, c.outcome.ContainerID)
	return nil
}

func isRestore(t *ticket.Ticket) bool { return t != nil && t.Decision == ticket.Restore }

// isReported reports whether the status of a pod has a container that was started, whatever
// became of it. One that was only created, and not started before the node lost its power, has
// a status, too.
func isReported(pod *corev1.Pod, name, id string) bool {
	status := statusOf(pod, name)
	if status == nil {
		return false
	}
	if status.State.Running != nil && hasID(status.ContainerID, id) {
		return true
	}
	for _, state := range []corev1.ContainerState{status.State, status.LastTerminationState} {
		if ended := state.Terminated; ended != nil && hasID(ended.ContainerID, id) && ended.StartedAt.Unix() > 0 {
			return true
		}
	}
	return false
}

// hasID reports whether a name such as containerd://9f86… has an ID.
func hasID(name, id string) bool { return strings.HasSuffix(name, "://"+id) }

// ofRequest returns a ticket, nil if there is none for this request.
func ofRequest(request string, read func() (*ticket.Ticket, error)) (*ticket.Ticket, error) {
	t, err := read()
	if errors.Is(err, ticket.ErrNone) || err == nil && t.Request != request {
		return nil, nil
	}
	return t, err
}

// runningID returns the ID of a container that runs, "" if it does not.
func runningID(pod *corev1.Pod, name string) string {
	status := statusOf(pod, name)
	if status == nil || status.State.Running == nil {
		return ""
	}
	_, id, _ := strings.Cut(status.ContainerID, "://")
	return id
}

// statusOf returns the status of a container; nil if there is none yet.
func statusOf(pod *corev1.Pod, name string) *corev1.ContainerStatus {
	all := &pod.Status
	for _, statuses := range [][]corev1.ContainerStatus{all.InitContainerStatuses, all.ContainerStatuses, all.EphemeralContainerStatuses} {
		for i := range statuses {
			if statuses[i].Name == name {
				return &statuses[i]
			}
		}
	}
	return nil
}
