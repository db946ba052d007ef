package volume

import (
	"cmp"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

// LabelCheckpoint on a claim or pod has the UID of its Checkpoint.
const LabelCheckpoint = "checkpoint.example.com/checkpoint-uid"

// objectName is the name of a Checkpoint's pod, and of its claim if it is from a template.
// With the UID, what an earlier Checkpoint of the same name has left is not in the way, and
// nobody can take the name before the Checkpoint exists.
func objectName(c *v1alpha1.Checkpoint) string { return "checkpoint-" + string(c.UID) }

func claimName(c *v1alpha1.Checkpoint) string {
	if hasTemplate(c) {
		return objectName(c)
	}
	return c.Status.Storage.PVC.ClaimName
}

// objectMeta names the Checkpoint as the controller of an object. The garbage collector
// deletes the object should the Checkpoint go without us.
func objectMeta(c *v1alpha1.Checkpoint) metav1.ObjectMeta {
	owner := *metav1.NewControllerRef(c, v1alpha1.GroupVersion.WithKind("Checkpoint"))
	owner.BlockOwnerDeletion = nil // It would need a permission on the Checkpoint's finalizers.
	return metav1.ObjectMeta{
		Namespace: c.Namespace, Name: objectName(c), OwnerReferences: []metav1.OwnerReference{owner},
		Labels: map[string]string{LabelCheckpoint: string(c.UID)},
	}
}

func newClaim(c *v1alpha1.Checkpoint) *corev1.PersistentVolumeClaim {
	template := c.Status.Storage.PVCTemplate
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: objectMeta(c),
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: template.AccessModes, Resources: template.Resources, StorageClassName: template.StorageClassName,
		},
	}
}

// A Program is what the pods run: something that waits until it is stopped.
type Program struct {
	Image      string
	PullPolicy corev1.PullPolicy
	// Command is the program in the image; empty for that of the image.
	Command []string
}

// nobody is a user without permissions.
const nobody = 65532

// newPod returns a pod that passes the restricted Pod Security Standard. The scheduler
// places it, rather than we, so that a claim may wait for its first consumer and the
// scheduler can say why the node is not possible. Like the agent it runs on every node.
func newPod(c *v1alpha1.Checkpoint, program *Program) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: objectMeta(c)}
	pod.Name = c.Status.Volume.PodName
	pod.Spec = corev1.PodSpec{
		AutomountServiceAccountToken:  ptr.To(false),
		EnableServiceLinks:            ptr.To(false),
		TerminationGracePeriodSeconds: ptr.To(int64(5)),
		Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{
				Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{c.Status.NodeName},
			}}}},
		}}},
		Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To(int64(nobody)), RunAsGroup: ptr.To(int64(nobody)),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{newContainer(program)},
		Volumes: []corev1.Volume{{Name: "checkpoint", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c.Status.Volume.ClaimName},
		}}},
	}
	return pod
}

func newContainer(program *Program) corev1.Container {
	return corev1.Container{
		Name: "hold", Image: program.Image, ImagePullPolicy: program.PullPolicy, Command: program.Command,
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m"), corev1.ResourceMemory: resource.MustParse("16Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
		},
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true), Privileged: ptr.To(false),
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
		VolumeMounts: []corev1.VolumeMount{{Name: "checkpoint", MountPath: "/checkpoint"}},
	}
}

// nodeOf returns the node of a pod, or the one that newPod has chosen for it.
func nodeOf(pod *corev1.Pod) string {
	chosen := ""
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			for _, field := range term.MatchFields {
				chosen = field.Values[0]
			}
		}
	}
	return cmp.Or(pod.Spec.NodeName, chosen)
}
