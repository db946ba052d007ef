package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// A statefulSet is a StatefulSet whose replicas count their starts on their own
// volume, and then keep writing. They do not end by themselves or on SIGTERM.
type statefulSet struct {
	world       localWorld
	name        string
	maxReplicas int // the largest number of replicas so far
}

// replicaScripts are the scripts of replicas. Both log how many starts the volume has
// seen, and which replica used it first; on a filesystem they keep writing.
var replicaScripts = map[corev1.PersistentVolumeMode]string{
	corev1.PersistentVolumeFilesystem: `
		test -e /data/owner || echo $HOSTNAME > /data/owner
		echo >> /data/starts
		sync
		echo start $(wc -l < /data/starts) of $(cat /data/owner)
		while :; do echo >> /data/beats; sleep 0.1; done`,
	corev1.PersistentVolumeBlock: `
		set -- $(head -c 512 /dev/data | tr -d '\000')
		n=$((${1:-0} + 1)) owner=${2:-$HOSTNAME}
		echo $n $owner | dd of=/dev/data bs=512 conv=sync
		sync
		echo start $n of $owner
		sleep 100000`,
}

// createSet creates a StatefulSet without replicas. Its pods have the label test=NAME.
func (w localWorld) createSet(t *testing.T, name string, mode corev1.PersistentVolumeMode, change func(*corev1.PodSpec)) *statefulSet {
	t.Helper()
	container := corev1.Container{Name: "main", Image: cluster.BusyboxImage, Command: []string{"sh", "-ec", replicaScripts[mode]}}
	if mode == corev1.PersistentVolumeBlock {
		container.VolumeDevices = []corev1.VolumeDevice{{Name: "data", DevicePath: "/dev/data"}}
	} else {
		container.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	}
	labels := map[string]string{"test": name}
	pod := corev1.PodSpec{TerminationGracePeriodSeconds: ptr.To(int64(1)), Containers: []corev1.Container{container}}
	if change != nil {
		change(&pod)
	}
	_, err := w.Client.AppsV1().StatefulSets(w.Namespace).Create(t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.StatefulSetSpec{
			Replicas: ptr.To(int32(0)), ServiceName: name, PodManagementPolicy: appsv1.ParallelPodManagement,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{
				ObjectMeta: metav1.ObjectMeta{Name: "data"},
				Spec: corev1.PersistentVolumeClaimSpec{
					StorageClassName: ptr.To("local-attach"), VolumeMode: &mode, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
					Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("100Mi")}},
				},
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &statefulSet{world: w, name: name}
}

func (s *statefulSet) pod(replica int) string { return fmt.Sprintf("%s-%d", s.name, replica) }

func (s *statefulSet) claim(replica int) string { return "data-" + s.pod(replica) }

// volume returns the name of a replica's PersistentVolume.
func (s *statefulSet) volume(t *testing.T, replica int) string {
	t.Helper()
	return s.world.WaitBound(t, s.claim(replica)).Name
}

// node returns the node of a replica.
func (s *statefulSet) node(t *testing.T, replica int) string {
	t.Helper()
	pod, err := s.world.Client.CoreV1().Pods(s.world.Namespace).Get(t.Context(), s.pod(replica), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod.Spec.NodeName
}

// waitStarted waits until a replica has found its own data, with that number of
// starts.
func (s *statefulSet) waitStarted(t *testing.T, replica, starts int) {
	t.Helper()
	s.world.waitForPodLog(t, s.pod(replica), fmt.Sprintf("start %d of %s", starts, s.pod(replica)))
}

// scale returns when surplus pods are gone.
func (s *statefulSet) scale(t *testing.T, replicas int) {
	t.Helper()
	s.maxReplicas = max(s.maxReplicas, replicas)
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	_, err := s.world.Client.AppsV1().StatefulSets(s.world.Namespace).Patch(t.Context(), s.name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	world.Eventually(t, func(ctx context.Context) error {
		pods, err := s.world.Client.CoreV1().Pods(s.world.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "test=" + s.name})
		if err == nil && len(pods.Items) > replicas {
			err = errors.New("there are still surplus pods")
		}
		return err
	})
}

// delete deletes the StatefulSet and its claims, and returns when the volumes are
// gone.
func (s *statefulSet) delete(t *testing.T) {
	t.Helper()
	s.scale(t, 0)
	for i := range s.maxReplicas {
		volume := s.world.WaitBound(t, s.claim(i))
		s.world.DeleteClaim(t, s.claim(i))
		s.world.WaitPVGone(t, volume)
	}
	if err := s.world.Client.AppsV1().StatefulSets(s.world.Namespace).Delete(t.Context(), s.name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}
