package resize

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
)

const (
	driverName = "csitest.holdfast.io"
	gib        = int64(1 << 30)
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func options() *Options {
	return &Options{
		Driver: driverName, Workers: 1, RetryStart: time.Second, RetryMax: 5 * time.Minute,
		HandleInUseError: true, Recover: true, AnnotateOldSize: true, Modify: true,
	}
}

// announced returns the capabilities of a driver with the given options.
func announced(t *testing.T, o csitest.Options) csi.Info {
	t.Helper()
	driver, err := csi.Connect(t.Context(), csi.Options{Address: csitest.New(o).Serve(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer driver.Close()
	info, err := driver.WaitReady(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func list(gibibytes int64) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: quantity(gibibytes * gib)}
}

// bound returns a claim that has the 1 GiB that it requests, with its volume.
func bound(info csi.Info) state {
	return state{
		info: info, canModify: true,
		claim: &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: "data", Namespace: "team", UID: "uid", ResourceVersion: "7"},
			Spec: corev1.PersistentVolumeClaimSpec{
				VolumeName: "pv", Resources: corev1.VolumeResourceRequirements{Requests: list(1)},
			},
			Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Capacity: list(1)},
		},
		volume: &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pv", UID: "pv-uid", ResourceVersion: "8"},
			Spec: corev1.PersistentVolumeSpec{
				Capacity:    list(1),
				ClaimRef:    &corev1.ObjectReference{Namespace: "team", Name: "data", UID: "uid"},
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				PersistentVolumeSource: corev1.PersistentVolumeSource{
					CSI: &corev1.CSIPersistentVolumeSource{Driver: driverName, VolumeHandle: "volume-1"},
				},
			},
		},
	}
}

// A change modifies the state of a claim or its volume.
type change func(*state)

func requests(gibibytes int64) change {
	return func(s *state) { s.claim.Spec.Resources.Requests = list(gibibytes) }
}

func requestsQuantity(size string) change {
	return func(s *state) {
		s.claim.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
	}
}

func hasQuantity(size string) change {
	return func(s *state) {
		s.claim.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
	}
}

// record sets the status and the target of an expansion in the claim.
func record(status corev1.ClaimResourceStatus, gibibytes int64) change {
	return func(s *state) {
		s.claim.Status.AllocatedResources = list(gibibytes)
		setExpansionStatus(s.claim, status)
	}
}

func volumeHas(gibibytes int64) change {
	return func(s *state) { s.volume.Spec.Capacity = list(gibibytes) }
}

// holds adds a condition that started some time ago.
func holds(of corev1.PersistentVolumeClaimConditionType, reason string, ago time.Duration) change {
	return func(s *state) {
		c := newCondition(of, noon.Add(-ago))
		c.Reason = reason
		s.claim.Status.Conditions = append(s.claim.Status.Conditions, *c)
	}
}

// reason adds a condition with a reason that started an hour ago.
func reason(of corev1.PersistentVolumeClaimConditionType, reason string) change {
	return holds(of, reason, time.Hour)
}

func annotatedOldSize(s *state) {
	s.volume.Annotations = map[string]string{kube.AnnPreResizeCapacity: "1Gi"}
}

// attributes returns a class of the driver that was created some time ago.
func attributes(name string, ago time.Duration) *storagev1.VolumeAttributesClass {
	return &storagev1.VolumeAttributesClass{
		ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(noon.Add(-ago))}, DriverName: driverName,
	}
}

// wants requests a class that exists.
func wants(name string) change {
	return func(s *state) {
		s.claim.Spec.VolumeAttributesClassName, s.desiredClass = &name, attributes(name, time.Hour)
	}
}

func current(name string) change {
	return func(s *state) { s.claim.Status.CurrentVolumeAttributesClassName = &name }
}

// toGold sets the status of a modification to a class that exists.
func toGold(status corev1.PersistentVolumeClaimModifyVolumeStatus) change {
	return func(s *state) {
		setModificationStatus(s.claim, status, "gold")
		s.targetClass = attributes("gold", time.Hour)
	}
}

func unwanted(s *state) { s.claim.Spec.VolumeAttributesClassName = ptr.To(""); s.desiredClass = nil }
