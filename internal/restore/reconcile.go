package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/archive"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/runtime/oci"
	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// Node is what the agent does to running containers.
type Node interface {
	// Bundle returns the bundle of a running container.
	Bundle(id string) (*oci.Bundle, error)
	// Kill ends a container; it is no error if it has ended.
	Kill(ctx context.Context, id string) error
}

// Reconciler restores the pods of one node.
type Reconciler struct {
	client    client.Client
	apiReader client.Reader // uncached
	events    *kube.Events
	options   *Options
	archives  Archives
	node      Node
	// fetches limits how many containers are fetched concurrently.
	fetches *semaphore.Weighted
	backoff *backoff
	now     func() time.Time
}

const (
	// nextStep is the pause before the next step, for which there may be no event.
	nextStep = 100 * time.Millisecond
	// lookAgain is how often the agent looks for a Checkpoint that is not ready, and for what the wrapper has done: there are events of the pod for
	// most of that.
	lookAgain = 5 * time.Second
	// lookForDeletion is how often it looks whether a Checkpoint was deleted whose data are on the
	// node: the agent is not told.
	lookForDeletion = 30 * time.Second
	// lookForVolume is how often it looks whether a volume is mounted, which takes seconds.
	lookForVolume = time.Second
)

// Reconcile does the next step for one pod.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var pod *corev1.Pod
	if err := kube.GetIfExists(ctx, r.client, request.NamespacedName, &pod); err != nil {
		return reconcile.Result{}, err
	}
	if pod == nil || isOver(pod) {
		r.backoff.forget(request.NamespacedName)
		return reconcile.Result{}, r.removeUnowned(ctx)
	}
	s, err := r.observe(ctx, pod)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("observing the restore of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	result, err := r.execute(ctx, s, decide(s, r.now()))
	if kube.IsConflict(err) {
		return reconcile.Result{RequeueAfter: kube.RetryAfterConflict(r.options.RetryStart)}, nil
	}
	r.events.WarnIfDenied(pod, kube.ReasonDenied, err)
	return result, err
}

func (r *Reconciler) execute(ctx context.Context, s *state, next step) (reconcile.Result, error) {
	soon, later := reconcile.Result{RequeueAfter: nextStep}, reconcile.Result{RequeueAfter: lookAgain}
	switch next.action {
	case forget:
		return reconcile.Result{}, r.forget(ctx, s)
	case settle:
		return r.settle(ctx, s)
	case fail:
		return soon, r.fail(ctx, s, next.problem)
	case postpone:
		return reconcile.Result{RequeueAfter: next.problem.lookAgain()}, r.notYet(ctx, s, next.problem.reason, next.problem.message)
	case askForVolume, stage, reissue, stop:
		return r.advance(ctx, s, next)
	case await:
		return later, nil
	case succeed:
		return soon, r.succeed(ctx, s)
	}
	return reconcile.Result{}, nil
}

// advance does a step towards the start of the containers.
func (r *Reconciler) advance(ctx context.Context, s *state, next step) (reconcile.Result, error) {
	later := reconcile.Result{RequeueAfter: lookAgain}
	switch next.action {
	case askForVolume:
		return reconcile.Result{RequeueAfter: nextStep}, r.askForVolume(ctx, s)
	case reissue:
		return later, r.reissue(ctx, s, next.containers)
	case stop:
		return later, r.stop(ctx, s, next.containers)
	default:
		return r.stageAll(ctx, s, next.containers)
	}
}

// lookAgain returns after which time a problem may have passed.
func (p *problem) lookAgain() time.Duration {
	if p.reason == v1alpha1.ReasonVolumePending {
		return lookForVolume
	}
	return lookAgain
}

// stageAll stages the data. A failure that may pass is repeated, with longer and longer pauses.
func (r *Reconciler) stageAll(ctx context.Context, s *state, missing []*container) (reconcile.Result, error) {
	wait, again := r.backoff.pause(s, r.now())
	if wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	if !again { // Else the condition says what is wrong until that has changed.
		message := fmt.Sprintf("fetching %s of Checkpoint %s/%s", s.checkpoint.Status.StoredSize, s.checkpoint.Namespace, s.checkpoint.Name)
		if err := r.notYet(ctx, s, v1alpha1.ReasonFetching, message); err != nil {
			return reconcile.Result{}, err
		}
	}
	err := r.stage(ctx, s, missing)
	if kube.IsConflict(err) {
		return reconcile.Result{}, err
	}
	if p := problemOf(err); p != nil && p.temporary {
		return reconcile.Result{RequeueAfter: r.backoff.failed(s, r.now())}, r.notYet(ctx, s, p.reason, p.message)
	} else if p != nil {
		return reconcile.Result{RequeueAfter: nextStep}, r.fail(ctx, s, p)
	}
	r.backoff.forget(nameOf(s))
	return reconcile.Result{RequeueAfter: nextStep}, r.notYet(ctx, s, v1alpha1.ReasonRestoring,
		"the data are verified and on the node; waiting for the containers to start")
}

// useless are the errors of archives from which nobody will ever restore.
var useless = []error{
	archive.ErrDamaged, archive.ErrFormat, archive.ErrUnsupported, archive.ErrIdentity, archive.ErrLimit, archive.ErrPredecessor, store.ErrNotFound,
}

// problemOf says what a failed fetch means; nil if it has not failed.
func problemOf(err error) *problem {
	if err == nil {
		return nil
	}
	p := &problem{message: err.Error()}
	switch {
	case errors.Is(err, errNoRoom):
		p.reason, p.temporary = string(runtime.InsufficientNodeDisk), true
	case slices.ContainsFunc(useless, func(known error) bool { return errors.Is(err, known) }):
		p.reason = v1alpha1.ReasonRestoreFailed
	case errors.Is(err, store.ErrInvalid):
		p.reason = v1alpha1.ReasonStorageInvalid
	case errors.Is(err, store.ErrDenied):
		p.reason = v1alpha1.ReasonStorageDenied
	default:
		p.reason, p.temporary = v1alpha1.ReasonStorageUnreachable, true
	}
	return p
}

// reissue issues tickets anew. A container that was restored, and that the kubelet does not
// report, may still run: containerd forgets one whose shim dies before it is started. Its
// volumes are put back once more, unless another container uses them.
func (r *Reconciler) reissue(ctx context.Context, s *state, containers []*container) error {
	for _, c := range containers {
		if c.outcome != nil && c.outcome.Error == "" {
			if err := r.endUnreported(ctx, s, c); err != nil {
				return err
			}
		}
		t := r.ticketFor(s, c, c.fetched())
		unused := slices.DeleteFunc(slices.Clone(t.Volumes), func(v ticket.Volume) bool { return s.isUsed(v.Name) })
		if err := renewVolumes(c, unused); err != nil {
			return err
		}
		if err := c.place.Issue(t); err != nil {
			return err
		}
	}
	return nil
}

// endUnreported ends a restored container that the kubelet has not reported. The cache may
// lack the report.
func (r *Reconciler) endUnreported(ctx context.Context, s *state, c *container) error {
	current, err := r.readCurrent(ctx, s)
	if err != nil {
		return err
	}
	if isReported(current, c.name, c.outcome.ContainerID) {
		return kube.Conflict("pod %s/%s has changed", s.pod.Namespace, s.pod.Name)
	}
	return r.node.Kill(ctx, c.outcome.ContainerID)
}

// readCurrent reads the pod from the API server. It is a conflict if its request was
// withdrawn or settled meanwhile.
func (r *Reconciler) readCurrent(ctx context.Context, s *state) (*corev1.Pod, error) {
	var current *corev1.Pod
	if err := kube.GetIfExists(ctx, r.apiReader, client.ObjectKeyFromObject(s.pod), &current); err != nil {
		return nil, err
	}
	if current == nil || current.UID != s.pod.UID || current.Annotations[v1alpha1.AnnotationRestoreFrom] != s.request ||
		current.Annotations[v1alpha1.AnnotationObservedRestoreFrom] == s.request {
		return nil, kube.Conflict("pod %s/%s has changed", s.pod.Namespace, s.pod.Name)
	}
	return current, nil
}

// stop ends running containers. The kubelet starts them again, with their tickets. The cache
// may be stale: a request that was withdrawn, or that is settled, stops nothing.
func (r *Reconciler) stop(ctx context.Context, s *state, containers []*container) error {
	if _, err := r.readCurrent(ctx, s); err != nil {
		return err
	}
	for _, c := range containers {
		r.events.Normal(s.pod, v1alpha1.ReasonRestoring, fmt.Sprintf("stopping container %s: it is restored from Checkpoint %s when the kubelet starts it again", c.name, s.request))
		if err := r.node.Kill(ctx, c.runningID); err != nil {
			return err
		}
	}
	return nil
}

// settle issues the tickets by which containers start once the outcome is on record, and
// removes what no restore needs any more.
func (r *Reconciler) settle(ctx context.Context, s *state) (reconcile.Result, error) {
	restored := isRestored(s.pod)
	var result reconcile.Result
	var settled []*container
	for _, c := range s.containers {
		switch {
		case c.inUse:
			result.RequeueAfter = lookAgain
		case c.isUnsettled(restored), s.againProblem(c) != nil:
			if err := r.settleContainer(ctx, s, c, restored); err != nil {
				return result, err
			}
			settled = append(settled, c)
			result.RequeueAfter = nextStep // It may have a ticket now that needs looking after.
		case c.again() != nil && result.RequeueAfter == 0:
			result.RequeueAfter = lookForDeletion
		}
	}
	if len(settled) > 0 && !slices.ContainsFunc(s.containers, func(c *container) bool { return c.place.HasData() }) {
		return result, settled[0].place.RemoveVolumes()
	}
	return result, nil
}

func (r *Reconciler) settleContainer(ctx context.Context, s *state, c *container, restored bool) error {
	decision, p := s.decisionAfter(c, restored), s.againProblem(c)
	if p == nil && decision == ticket.Restore && (s.checkpoint == nil || !c.place.HasData()) {
		p = s.lostData(c)
	}
	if p != nil {
		if err := r.failAgain(ctx, s, c, p); err != nil {
			return err
		}
		decision = s.decisionAfterAgain(c)
	}
	if decision == ticket.Restore {
		t := r.ticketFor(s, c, c.fetched())
		t.Again, t.FreshAfter = true, s.policy.OnFailure == v1alpha1.OnFailureStartFresh
		t.Expires = r.now().AddDate(100, 0, 0) // The container may run for long.
		if err := renewVolumes(c, t.Volumes); err != nil {
			return err
		}
		return c.place.Issue(t)
	}
	if err := r.removeData(c); err != nil {
		return err
	}
	return c.place.Issue(ticket.Ticket{Request: s.request, Decision: decision, Message: s.messageAfter()})
}

// isUnsettled reports whether a container lacks its ticket of a settled request: it has none,
// has used it, or has one to restore although the request has failed.
func (c *container) isUnsettled(restored bool) bool {
	return c.issued == nil || c.claimed != nil || !restored && c.issued.Decision == ticket.Restore && !c.issued.Again
}

// messageAfter is what a container says that does not start after a failed restore.
func (s *state) messageAfter() string {
	reason := ""
	if c := conditionOf(s.pod); c != nil {
		reason = ": " + c.Message
	}
	return fmt.Sprintf("the pod was not restored from %s%s; remove the annotation %s to start it afresh, or change it to restore from another Checkpoint",
		s.request, reason, v1alpha1.AnnotationRestoreFrom)
}

// forget removes the tickets and data of a pod whose request was withdrawn.
func (r *Reconciler) forget(ctx context.Context, s *state) error {
	dir := filepath.Join(r.options.Dir, string(s.pod.UID))
	if err := r.remove(dir); err != nil {
		return fmt.Errorf("removing the restore of pod %s/%s: %w", s.pod.Namespace, s.pod.Name, err)
	}
	if s.pod.Annotations[v1alpha1.AnnotationObservedRestoreFrom] == "" {
		return nil
	}
	return kube.ChangeStatus(ctx, r.client, s.pod, func(p *corev1.Pod) { delete(p.Annotations, v1alpha1.AnnotationObservedRestoreFrom) })
}

// removeUnowned removes what is left of pods that are gone or over. The cache must be filled.
func (r *Reconciler) removeUnowned(ctx context.Context) error {
	entries, err := os.ReadDir(r.options.Dir)
	if errors.Is(err, os.ErrNotExist) || len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing restores: %w", err)
	}
	var pods corev1.PodList
	if err := r.client.List(ctx, &pods, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing pods: %w", err)
	}
	owned := map[types.UID]bool{}
	for i := range pods.Items {
		owned[pods.Items[i].UID] = !isOver(&pods.Items[i])
	}
	for _, entry := range entries {
		if owned[types.UID(entry.Name())] || strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		if err := r.remove(filepath.Join(r.options.Dir, entry.Name())); err != nil {
			return fmt.Errorf("removing the restore of a pod that is gone: %w", err)
		}
	}
	return nil
}
