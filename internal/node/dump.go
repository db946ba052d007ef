package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/runtime"
)

// dump records an attempt, and dumps the containers. A store that cannot be used is found
// out before anything is frozen.
func (r *Reconciler) dump(ctx context.Context, c *v1alpha1.Checkpoint) error {
	pod, containers, err := r.findContainers(ctx, c)
	if err != nil {
		return r.dumpFailed(ctx, c, err)
	}
	if err := r.checkStore(ctx, c); err != nil {
		reason, who := storageReason(err)
		return r.retry(ctx, c, failure{
			reason: reason, waitingFor: who, after: r.pauseAfter(c, c.Status.Attempts), problem: err, attempts: c.Status.Attempts,
		})
	}
	engines, err := r.probes.choose(len(containers))
	if err != nil {
		return r.dumpFailed(ctx, c, err)
	}
	if err := r.staged.discard(c.UID); err != nil { // A part of an earlier attempt.
		return fmt.Errorf("removing the dumps of an earlier attempt from the node: %w", err)
	}
	return r.dumpWith(ctx, c, engines, pod, containers)
}

// dumpWith dumps containers with the first engine that knows their runtime, and saves the
// dumps.
func (r *Reconciler) dumpWith(ctx context.Context, c *v1alpha1.Checkpoint, engines []runtime.Engine, pod *corev1.Pod, containers []runtime.Container) error {
	budget := frozenBudget(pod, c.Spec.MaxFrozenTime, containers)
	options := runtime.Options{CloseTCP: c.Spec.EstablishedTCP == v1alpha1.CloseTCP, Timeout: budget.time, Fast: true}
	if limit := c.Status.EphemeralVolumes.Limit(); limit > 0 {
		options.Volumes, options.VolumeLimit = ephemeralVolumes(pod, containers, r.options.KubeletDir), limit
	}
	before := c.Status.Attempts
	for i, engine := range engines {
		if err := r.recordAttempt(ctx, c, before+1, engine.Name(), containers); err != nil {
			return err
		}
		dumps, err := engine.Checkpoint(ctx, string(c.UID), containers, options)
		switch {
		case err == nil:
			r.staged.add(c.UID, dumps)
			return r.save(ctx, c)
		case runtime.IsUntouched(err):
			return r.retry(ctx, c, failure{
				reason: string(runtime.ReasonOf(err)), waitingFor: v1alpha1.WaitingForNode, after: r.pauseAfter(c, before), problem: err,
				attempts: before,
			})
		case !runtime.IsOfEngine(err) || i == len(engines)-1:
			return r.dumpFailed(ctx, c, budget.explain(err))
		}
		options.NotFaster = fmt.Sprintf("engine %s: %v", engine.Name(), err)
	}
	return nil
}

// checkStore returns an error if the data could not be stored.
func (r *Reconciler) checkStore(ctx context.Context, c *v1alpha1.Checkpoint) error {
	if _, err := r.stores.Key(ctx, c); err != nil {
		return err
	}
	place, err := r.stores.Open(ctx, c)
	if err != nil {
		return err
	}
	return place.Check(ctx)
}

// findContainers returns the running containers of a Checkpoint. The pod is read from the
// API server: the one of the cache may have been replaced by another.
func (r *Reconciler) findContainers(ctx context.Context, c *v1alpha1.Checkpoint) (*corev1.Pod, []runtime.Container, error) {
	namespace := c.Spec.Target.Namespace
	if namespace == "" {
		namespace = c.Namespace
	}
	var pod *corev1.Pod
	err := kube.GetIfExists(ctx, r.apiReader, client.ObjectKey{Namespace: namespace, Name: c.Spec.Target.PodName}, &pod)
	switch {
	case err != nil:
		return nil, nil, err
	case pod == nil:
		return nil, nil, runtime.Errorf(runtime.PodGone, "pod %s/%s does not exist any more", namespace, c.Spec.Target.PodName)
	case pod.UID != c.Status.PodUID:
		return nil, nil, runtime.Errorf(runtime.SourcePodReplaced, "pod %s/%s was replaced: its UID is %s and was %s; create another Checkpoint for the new one", namespace, pod.Name, pod.UID, c.Status.PodUID)
	}
	var containers []runtime.Container
	for i := range c.Status.Containers {
		name := c.Status.Containers[i].Name
		id, image := runningContainer(pod, name)
		if id == "" {
			return nil, nil, runtime.RetryErrorf(runtime.ContainerNotRunning, "container %s of pod %s/%s is not running", name, namespace, pod.Name)
		}
		containers = append(containers, runtime.Container{Namespace: namespace, Pod: pod.Name, PodUID: string(pod.UID), Name: name, ID: id, ImageID: image})
	}
	return pod, containers, nil
}

// runningContainer returns the ID of a running container, without the runtime's name, and
// that of its image.
func runningContainer(pod *corev1.Pod, name string) (id, image string) {
	for _, status := range slices.Concat(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses) {
		if status.Name == name && status.State.Running != nil {
			_, id, _ := strings.Cut(status.ContainerID, "://")
			return id, status.ImageID
		}
	}
	return "", ""
}

// recordAttempt records that a container may be frozen from now on.
func (r *Reconciler) recordAttempt(ctx context.Context, about *v1alpha1.Checkpoint, attempt int32, engine string, containers []runtime.Container) error {
	return kube.ChangeStatus(ctx, r.client, about, func(c *v1alpha1.Checkpoint) {
		c.Status.Attempts = attempt
		c.Status.StartTime, c.Status.NextAttemptTime = ptr.To(metav1.NewTime(r.now())), nil
		c.Status.Engine, c.Status.WaitingFor = engine, v1alpha1.WaitingForNode
		for i := range containers {
			c.Status.Containers[i].ContainerID, c.Status.Containers[i].ImageDigest = containers[i].ID, containers[i].ImageID
		}
		r.setReady(c, metav1.ConditionFalse, v1alpha1.ReasonInProgress, "the agent of node "+r.options.Node+" makes the checkpoint")
	})
}

// dumpFailed records a failed attempt. It is repeated if that may help.
func (r *Reconciler) dumpFailed(ctx context.Context, c *v1alpha1.Checkpoint, problem error) error {
	reason := string(runtime.ReasonOf(problem))
	if !runtime.IsRetryable(problem) || c.Status.Attempts >= r.options.Attempts {
		return r.fail(ctx, c, reason, problem)
	}
	return r.retry(ctx, c, failure{
		reason: reason, waitingFor: v1alpha1.WaitingForNode, after: r.pauseAfter(c, c.Status.Attempts), problem: problem, attempts: c.Status.Attempts,
	})
}

// pauseAfter returns the pause after a number of attempts. Failures without an attempt, such
// as a container that is not running or a full disk, do not count: for those it is a quarter
// of the time since the Checkpoint was created.
func (r *Reconciler) pauseAfter(c *v1alpha1.Checkpoint, attempts int32) time.Duration {
	if attempts > 0 {
		return r.options.backoff(attempts)
	}
	return min(max(r.now().Sub(c.CreationTimestamp.Time)/4, r.options.RetryStart), r.options.RetryMax)
}

// A budget is for how long a container may be frozen; 0 for any time.
type budget struct {
	time time.Duration
	// container is the one whose liveness probe sets the budget; "" if the user does.
	container string
}

// frozenBudget returns for how long containers may be frozen: as long as the user permits,
// and not so long that the kubelet kills one. A frozen container does not answer its
// liveness probe. The first probe that fails may come at once, so there is time for all
// further ones and the timeout of the last.
func frozenBudget(pod *corev1.Pod, limit *metav1.Duration, frozen []runtime.Container) budget {
	var b budget
	if limit != nil {
		b.time = limit.Duration
	}
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		isFrozen := slices.ContainsFunc(frozen, func(f runtime.Container) bool { return f.Name == c.Name })
		if c.LivenessProbe == nil || !isFrozen {
			continue
		}
		permits := time.Duration((max(c.LivenessProbe.FailureThreshold, 1)-1)*c.LivenessProbe.PeriodSeconds+max(c.LivenessProbe.TimeoutSeconds, 1)) * time.Second
		if b.time == 0 || permits < b.time {
			b = budget{permits, c.Name}
		}
	}
	return b
}

// explain names the liveness probe if it is why a checkpoint took too long.
func (b budget) explain(problem error) error {
	var e *runtime.Error
	if b.container == "" || !errors.As(problem, &e) || e.Reason != runtime.Timeout {
		return problem
	}
	return &runtime.Error{Reason: runtime.LivenessBudgetTooSmall, Err: fmt.Errorf(
		"%w: the liveness probe of container %s permits only %s; raise its failureThreshold or periodSeconds", problem, b.container, b.time)}
}
