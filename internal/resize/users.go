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

// users finds the pods that use a claim, and tells when one of them has ended.
// It is only asked about claims whose volume the driver did not want to expand
// because it was in use, so there is no cache of all pods of the cluster: pods
// are listed in one namespace, and one pod is watched for each such claim.
type users struct {
	client client.WithWatch
	// ctx ends the watches.
	ctx context.Context //nolint:containedctx // They live as long as the controller, not as the call that begins them.
	// ended wakes up the claim whose user has ended.
	ended chan event.GenericEvent

	mu      sync.Mutex
	watched map[types.UID]bool // claims
}

// endedBacklog is far more than the pods that end at a time.
const endedBacklog = 1024

func newUsers(ctx context.Context, c client.WithWatch) *users {
	return &users{client: c, ctx: ctx, ended: make(chan event.GenericEvent, endedBacklog), watched: map[types.UID]bool{}}
}

// awaited returns the name of a pod that uses a claim, and wakes the claim up
// when that has ended; "" if there is none.
func (u *users) awaited(ctx context.Context, claim *corev1.PersistentVolumeClaim) (string, error) {
	pods := &corev1.PodList{}
	if err := u.client.List(ctx, pods, client.InNamespace(claim.Namespace)); err != nil {
		return "", fmt.Errorf("looking for pods that use claim %s: %w", claim.Name, err)
	}
	for i := range pods.Items {
		if pod := &pods.Items[i]; !over(pod) && uses(pod, claim.Name) {
			u.await(claim, pod.Name, pods.ResourceVersion)
			return pod.Name, nil
		}
	}
	return "", nil
}

// await wakes a claim up when a pod has ended.
func (u *users) await(claim *corev1.PersistentVolumeClaim, pod, version string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.watched[claim.UID] {
		return
	}
	u.watched[claim.UID] = true
	go func() {
		ended := u.ends(claim.Namespace, pod, version)
		u.mu.Lock()
		delete(u.watched, claim.UID) // First: who is woken up may have another pod to wait for.
		u.mu.Unlock()
		if ended {
			u.ended <- event.GenericEvent{Object: claim}
		}
	}()
}

// ends waits until a pod has ended. It is false if the watch ended before that.
func (u *users) ends(namespace, pod, version string) bool {
	w, err := u.client.Watch(u.ctx, &corev1.PodList{}, &client.ListOptions{
		Namespace: namespace,
		Raw:       &metav1.ListOptions{ResourceVersion: version, FieldSelector: "metadata.name=" + pod},
	})
	if err != nil {
		return false // Without the right to watch there still is the next look.
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		seen, ok := e.Object.(*corev1.Pod)
		if e.Type == watch.Deleted || ok && over(seen) {
			return true
		}
	}
	return false
}

// over tells whether nothing of a pod runs any more.
func over(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// uses tells whether a pod uses a claim of its namespace, or has had one made of
// that name.
func uses(pod *corev1.Pod, claim string) bool {
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
