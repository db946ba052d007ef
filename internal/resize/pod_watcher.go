package resize

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
)

// A podWatcher finds pods that use a claim and enqueues the claim when such a
// pod has ended. It is used only for claims whose volume the driver could not
// expand because it was in use. So there is no cache of all pods of the
// cluster: the pods of one namespace are listed, and one pod is watched for
// each such claim.
type podWatcher struct {
	client client.WithWatch
	// ctx ends the watches.
	ctx context.Context //nolint:containedctx // The watches live as long as the controller, not as the call that starts them.
	// ended enqueues the claim whose pod has ended.
	ended chan event.GenericEvent

	mu      sync.Mutex
	watched map[types.UID]bool // claims
}

// endedBuffer is far more than the number of pods that end at the same time.
const endedBuffer = 1024

func newPodWatcher(ctx context.Context, c client.WithWatch) *podWatcher {
	return &podWatcher{client: c, ctx: ctx, ended: make(chan event.GenericEvent, endedBuffer), watched: map[types.UID]bool{}}
}

// findUser returns the name of a pod that uses the claim, and "" if there is
// none. It enqueues the claim when that pod has ended.
func (p *podWatcher) findUser(ctx context.Context, claim *corev1.PersistentVolumeClaim) (string, error) {
	pods := &corev1.PodList{}
	if err := p.client.List(ctx, pods, client.InNamespace(claim.Namespace)); err != nil {
		return "", fmt.Errorf("listing the pods that may use claim %s: %w", claim.Name, err)
	}
	for i := range pods.Items {
		if pod := &pods.Items[i]; !hasEnded(pod) && usesClaim(pod, claim.Name) {
			p.watchPod(claim, pod.Name, pods.ResourceVersion)
			return pod.Name, nil
		}
	}
	return "", nil
}

// watchPod enqueues a claim when a pod has ended.
func (p *podWatcher) watchPod(claim *corev1.PersistentVolumeClaim, pod, version string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watched[claim.UID] {
		return
	}
	p.watched[claim.UID] = true
	go func() {
		ended := p.waitForEnd(claim.Namespace, pod, version)
		p.mu.Lock()
		delete(p.watched, claim.UID) // Before the event: the next reconcile may have to watch another pod.
		p.mu.Unlock()
		if ended {
			p.ended <- event.GenericEvent{Object: claim}
		}
	}()
}

// waitForEnd waits until a pod has ended. It returns false if the watch ends
// before the pod.
func (p *podWatcher) waitForEnd(namespace, pod, version string) bool {
	op, err := p.client.Watch(p.ctx, &corev1.PodList{}, &client.ListOptions{
		Namespace: namespace,
		Raw:       &metav1.ListOptions{ResourceVersion: version, FieldSelector: "metadata.name=" + pod},
	})
	if err != nil {
		return false // Without permission to watch, the claim is retried after RetryMax.
	}
	defer op.Stop()
	for e := range op.ResultChan() {
		pod, ok := e.Object.(*corev1.Pod)
		if e.Type == watch.Deleted || ok && hasEnded(pod) {
			return true
		}
	}
	return false
}

// hasEnded reports whether all containers of a pod have terminated.
func hasEnded(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// usesClaim reports whether a pod uses a claim of its namespace, directly or as
// a generic ephemeral volume of that name.
func usesClaim(pod *corev1.Pod, claim string) bool {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if source := v.PersistentVolumeClaim; source != nil && source.ClaimName == claim {
			return true
		}
		if v.Ephemeral != nil && pod.Name+"-"+v.Name == claim {
			return true
		}
	}
	return false
}
