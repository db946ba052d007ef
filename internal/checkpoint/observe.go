package checkpoint

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// observe reads what decide has to know. Pods, their controllers and ReferenceGrants are
// read from the API server, once for each Checkpoint: a cache of all pods of a cluster
// would be most of the program.
func (r *Reconciler) observe(ctx context.Context, key client.ObjectKey) (*state, error) {
	s := &state{}
	if err := kube.GetIfExists(ctx, r.client, key, &s.checkpoint); err != nil || s.checkpoint == nil {
		return s, err
	}
	if s.isComplete() && !s.isDeleting() {
		return s, nil
	}
	if s.isDeleting() || s.isAssigned() {
		return s, r.observeAssigned(ctx, s)
	}
	return s, r.observeTarget(ctx, s)
}

// observeTarget reads the policy, the pod and what belongs to it.
func (r *Reconciler) observeTarget(ctx context.Context, s *state) error {
	if err := kube.GetIfExists(ctx, r.client, client.ObjectKey{Name: s.checkpoint.Spec.PolicyRef}, &s.policy); err != nil {
		return err
	}
	var err error
	if s.granted, err = r.isGranted(ctx, s.checkpoint); err != nil || !s.granted {
		return err
	}
	if err := kube.GetIfExists(ctx, r.apiReader, targetKey(s.checkpoint), &s.pod); err != nil || s.pod == nil {
		return err
	}
	if s.workload, err = r.workloadOf(ctx, s.pod); err != nil {
		return err
	}
	return r.observeAgents(ctx, s, s.pod.Spec.NodeName)
}

// observeAssigned reads what is left of the assigned node. Its agent publishes a
// CheckpointNode, which is deleted with the Node.
func (r *Reconciler) observeAssigned(ctx context.Context, s *state) error {
	name := s.checkpoint.Status.NodeName
	if err := r.observeAgents(ctx, s, name); err != nil || s.agent != nil || name == "" {
		return err
	}
	node := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}}
	err := r.apiReader.Get(ctx, client.ObjectKey{Name: name}, node)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("reading node %s: %w", name, err)
	}
	s.nodeExists = err == nil
	return nil
}

// observeAgents reads the agent of a node, and which other node has one.
func (r *Reconciler) observeAgents(ctx context.Context, s *state, node string) error {
	if err := kube.GetIfExists(ctx, r.client, client.ObjectKey{Name: node}, &s.agent); err != nil || s.agent != nil {
		return err
	}
	var all v1alpha1.CheckpointNodeList
	if err := r.client.List(ctx, &all); err != nil {
		return fmt.Errorf("listing CheckpointNodes: %w", err)
	}
	for i := range all.Items {
		if meta.IsStatusConditionTrue(all.Items[i].Status.Conditions, v1alpha1.ConditionReady) {
			s.otherAgent = all.Items[i].Name
			return nil
		}
	}
	return nil
}

// workloadOf returns what a pod belongs to, for retention: the Deployment of its
// ReplicaSet, the CronJob of its Job, or its controller. A pod of a StatefulSet is a
// workload of its own: each has a state of its own.
func (r *Reconciler) workloadOf(ctx context.Context, pod *corev1.Pod) (*v1alpha1.Workload, error) {
	owner := metav1.GetControllerOf(pod)
	if owner == nil || owner.Kind == "StatefulSet" {
		return &v1alpha1.Workload{APIVersion: "v1", Kind: "Pod", Name: pod.Name}, nil
	}
	if owner.Kind == "ReplicaSet" || owner.Kind == "Job" {
		between := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: owner.APIVersion, Kind: owner.Kind}}
		err := r.apiReader.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: owner.Name}, between)
		if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("reading the %s of pod %s/%s: %w", owner.Kind, pod.Namespace, pod.Name, err)
		}
		if above := metav1.GetControllerOf(between); above != nil {
			owner = above
		}
	}
	return &v1alpha1.Workload{APIVersion: owner.APIVersion, Kind: owner.Kind, Name: owner.Name}, nil
}

// isGranted reports whether a Checkpoint may name pods of its target's namespace: its own
// one, any for a Checkpoint in the operator's namespace, where only administrators write,
// or one with a ReferenceGrant.
func (r *Reconciler) isGranted(ctx context.Context, c *v1alpha1.Checkpoint) (bool, error) {
	key := targetKey(c)
	if key.Namespace == c.Namespace || c.Namespace == r.options.Namespace {
		return true, nil
	}
	from := schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: "Checkpoint"}
	return kube.IsReferenceGranted(ctx, r.apiReader, from, c.Namespace, kube.Referent{GroupKind: schema.GroupKind{Kind: "Pod"}, NamespacedName: key})
}
