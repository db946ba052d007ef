package volume

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// The rules of the restricted Pod Security Standard, and those that are ours: the pod gets
// nothing but the volume.
func TestPodIsUnprivileged(t *testing.T) {
	s := mounted()
	pod := newPod(s.checkpoint, &Program{Image: "holdfast", Command: []string{"/holdfast", HoldCommand}})
	spec, container := &pod.Spec, &pod.Spec.Containers[0]
	for rule, kept := range map[string]bool{
		"it is not root": ptr.Deref(spec.SecurityContext.RunAsNonRoot, false) && ptr.Deref(spec.SecurityContext.RunAsUser, 0) > 0,
		"it has the seccomp profile of the runtime": spec.SecurityContext.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault,
		"it cannot gain privileges":                 !ptr.Deref(container.SecurityContext.AllowPrivilegeEscalation, true) && !ptr.Deref(container.SecurityContext.Privileged, true),
		"it has no capabilities":                    container.SecurityContext.Capabilities.Drop[0] == "ALL" && len(container.SecurityContext.Capabilities.Add) == 0,
		"its root is read-only":                     ptr.Deref(container.SecurityContext.ReadOnlyRootFilesystem, false),
		"it has no token":                           !ptr.Deref(spec.AutomountServiceAccountToken, true),
		"it has nothing of the host":                !spec.HostNetwork && !spec.HostPID && !spec.HostIPC,
		"it has no volume but the claim":            len(spec.Volumes) == 1 && spec.Volumes[0].PersistentVolumeClaim.ClaimName == "checkpoint-1",
		"files keep their owners":                   spec.SecurityContext.FSGroup == nil,
		"the scheduler places it, on the node":      spec.NodeName == "" && nodeOf(pod) == "n1",
		"it runs on every node":                     len(spec.Tolerations) == 1 && spec.Tolerations[0].Operator == corev1.TolerationOpExists && spec.Tolerations[0].Key == "",
		"it goes with the Checkpoint":               isOurs(s.checkpoint, pod) && pod.OwnerReferences[0].BlockOwnerDeletion == nil,
	} {
		if !kept {
			t.Errorf("the pod breaks the rule that %s", rule)
		}
	}
}
