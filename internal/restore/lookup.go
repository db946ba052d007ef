package restore

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// lookUp finds the Checkpoint that the annotation names, and its policy. NAME is one of the
// pod's namespace or else one of the operator's own whose target is the pod's namespace.
// NAMESPACE/NAME needs a ReferenceGrant in that namespace, unless it is the pod's.
func (r *Reconciler) lookUp(ctx context.Context, s *state) error {
	candidates, granted, err := r.candidates(ctx, s)
	if err != nil || !granted {
		return err
	}
	for _, key := range candidates {
		var found *v1alpha1.Checkpoint
		if err := kube.GetIfExists(ctx, r.apiReader, key, &found); err != nil {
			return err
		}
		if found == nil || !s.mayMean(found) {
			continue
		}
		if s.problem = usable(found); s.problem == nil {
			s.checkpoint = found
		}
		return r.lookUpPolicy(ctx, s, found.Spec.PolicyRef)
	}
	s.problem = &problem{reason: v1alpha1.ReasonCheckpointNotFound, message: fmt.Sprintf(
		"there is no Checkpoint %s in namespace %s, and none of namespace %s that is of a pod in %s: change the annotation %s",
		s.request, candidates[0].Namespace, r.options.OperatorNamespace, s.pod.Namespace, v1alpha1.AnnotationRestoreFrom)}
	return nil
}

// mayMean reports whether the annotation means a Checkpoint of that name: one of another
// namespace, which it does not name, has to be of a pod of this one.
func (s *state) mayMean(c *v1alpha1.Checkpoint) bool {
	return c.Namespace == s.pod.Namespace || strings.Contains(s.request, "/") || targetNamespace(c) == s.pod.Namespace
}

// candidates returns the Checkpoints that the annotation may mean, and whether the pod may
// name them.
func (r *Reconciler) candidates(ctx context.Context, s *state) ([]types.NamespacedName, bool, error) {
	namespace, name, qualified := strings.Cut(s.request, "/")
	if !qualified {
		candidates := []types.NamespacedName{{Namespace: s.pod.Namespace, Name: s.request}}
		if own := r.options.OperatorNamespace; own != "" && own != s.pod.Namespace {
			candidates = append(candidates, types.NamespacedName{Namespace: own, Name: s.request})
		}
		return candidates, true, nil
	}
	key := types.NamespacedName{Namespace: namespace, Name: name}
	if namespace == s.pod.Namespace {
		return []types.NamespacedName{key}, true, nil
	}
	granted, err := kube.IsReferenceGranted(ctx, r.apiReader, schema.GroupKind{Kind: "Pod"}, s.pod.Namespace,
		kube.Referent{GroupKind: schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: "Checkpoint"}, NamespacedName: key})
	if err != nil {
		return nil, false, err
	}
	if !granted {
		s.problem = &problem{reason: v1alpha1.ReasonReferenceMissing, message: fmt.Sprintf(
			"no ReferenceGrant in namespace %s lets pods of namespace %s name its Checkpoints: create one with from {group: \"\", kind: Pod, namespace: %s} and to {group: %s, kind: Checkpoint}",
			namespace, s.pod.Namespace, s.pod.Namespace, v1alpha1.GroupVersion.Group)}
	}
	return []types.NamespacedName{key}, granted, nil
}

func targetNamespace(c *v1alpha1.Checkpoint) string {
	if c.Spec.Target.Namespace != "" {
		return c.Spec.Target.Namespace
	}
	return c.Namespace
}

// usable returns why a Checkpoint has no data to restore from; nil if it has.
func usable(c *v1alpha1.Checkpoint) *problem {
	conditions := c.Status.Conditions
	switch failed := meta.FindStatusCondition(conditions, v1alpha1.ConditionFailed); {
	case !c.DeletionTimestamp.IsZero():
		return &problem{reason: v1alpha1.ReasonCheckpointNotFound, message: fmt.Sprintf("Checkpoint %s/%s is being deleted", c.Namespace, c.Name)}
	case failed != nil && failed.Status == "True":
		return &problem{reason: v1alpha1.ReasonFailed, message: fmt.Sprintf("Checkpoint %s/%s has failed: %s", c.Namespace, c.Name, failed.Message)}
	case !meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionReady):
		return &problem{reason: v1alpha1.ReasonCheckpointNotReady, temporary: true, message: fmt.Sprintf("waiting for Checkpoint %s/%s to be ready", c.Namespace, c.Name)}
	default:
		return nil
	}
}

// lookUpPolicy reads what the policy of the Checkpoint says about restores.
func (r *Reconciler) lookUpPolicy(ctx context.Context, s *state, name string) error {
	if name == "" {
		return nil
	}
	var policy *v1alpha1.CheckpointPolicy
	if err := kube.GetIfExists(ctx, r.apiReader, types.NamespacedName{Name: name}, &policy); err != nil {
		return err
	}
	if policy != nil && policy.Spec.Restore != nil {
		s.policy = *policy.Spec.Restore
	}
	return nil
}
