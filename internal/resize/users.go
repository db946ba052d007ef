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

// podWatcher finds the pods that use a claim, and tells when one of them has ended.
// It is only asked about claims whose volume the driver did not want to expand
// because it was in use, so there is no cache of all pods of the cluster: pods
// are listed in one namespace, and one pod is watched for each such claim.
type podWatcher struct {
	client client.WithWatch
	// ctx ends the watches.
	ctx context.Context //nolint:containedctx // They live as long as the controller, not as the call that begins them.
	// ended wakes up the claim whose user has ended.
	ended chan event.GenericEvent

	mu      sync.Mutex
	watched map[types.UID]bool // claims
}

// endedBuffer is far more than the pods that end at a time.
const endedBuffer = 1024

func newPodWatcher(ctx context.Context, c client.WithWatch) *podWatcher {
	return &podWatcher{client: c, ctx: ctx, ended: make(chan event.GenericEvent, endedBuffer), watched: map[types.UID]bool{}}
}

// findUser returns the name of a pod that uses a claim, and wakes the claim up
// when that has ended; "" if there is none.
func (p *podWatcher) findUser(ctx context.Context, claim *corev1.PersistentVolumeClaim) (string, error) {
	pods := &corev1.PodList{}
	if err := p.client.List(ctx, pods, client.InNamespace(claim.Namespace)); err != nil {
		return "", fmt.Errorf("looking for pods that use claim %s: %w", claim.Name, err)
	}
	for i := range pods.Items {
		if pod := &pods.Items[i]; !hasEnded(pod) && usesClaim(pod, claim.Name) {
			p.watchPod(claim, pod.Name, pods.ResourceVersion)
			return pod.Name, nil
		}
	}
	return "", nil
}

// watchPod wakes a claim up when a pod has ended.
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
		delete(p.watched, claim.UID) // First: who is woken up may have another pod to wait for.
		p.mu.Unlock()
		if ended {
			p.ended <- event.GenericEvent{Object: claim}
		}
	}()
}

// waitForEnd waits until a pod has ended. It is false if the watch ended before that.
func (p *podWatcher) waitForEnd(namespace, pod, version string) bool {
	op, err := p.client.Watch(p.ctx, &corev1.PodList{}, &client.ListOptions{
		Namespace: namespace,
		Raw:       &metav1.ListOptions{ResourceVersion: version, FieldSelector: "metadata.name=" + pod},
	})
	if err != nil {
		return false // Without the right to watch there still is the next look.
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

// hasEnded tells whether nothing of a pod runs any more.
func hasEnded(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// usesClaim tells whether a pod uses a claim of its namespace, or has had one made of
// that name.
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
