package reclaim

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/migrate"
)

func TestDecide(t *testing.T) {
	retained := func(s *state) { s.volume.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain }
	in := func(phase corev1.PersistentVolumePhase) func(*state) {
		return func(s *state) { s.volume.Status.Phase = phase }
	}
	noFinalizer := func(s *state) { s.volume.Finalizers = []string{"kubernetes.io/pv-protection"} }
	deleting := func(s *state) { s.volume.DeletionTimestamp = &metav1.Time{} }
	by := func(name string) func(*state) {
		return func(s *state) { s.volume.Annotations[kube.AnnProvisionedBy] = name }
	}
	byHand := func(s *state) { s.volume.Annotations = nil }
	tests := map[string]struct {
		changes []func(*state)
		want    action
	}{
		"a released volume is deleted":                                                                {nil, deleteVolume},
		"a released volume that was created by hand is deleted":                                       {[]func(*state){byHand}, deleteVolume},
		"a released volume whose object is being deleted is deleted":                                  {[]func(*state){deleting}, deleteVolume},
		"a released volume that has lost our finalizer is deleted":                                    {[]func(*state){noFinalizer}, deleteVolume},
		"a deleted object without our finalizer is ignored":                                           {[]func(*state){noFinalizer, deleting}, none},
		"an attached volume waits for its detachment":                                                 {[]func(*state){func(s *state) { s.attached = true }}, waitForDetach},
		"a retained volume loses our finalizer":                                                       {[]func(*state){retained}, removeFinalizer},
		"a bound volume with policy Retain loses our finalizer":                                       {[]func(*state){retained, in(corev1.VolumeBound)}, removeFinalizer},
		"a retained volume without our finalizer is ignored":                                          {[]func(*state){retained, noFinalizer}, none},
		"a bound volume is ignored":                                                                   {[]func(*state){in(corev1.VolumeBound)}, none},
		"a bound volume without our finalizer gets it":                                                {[]func(*state){in(corev1.VolumeBound), noFinalizer}, addFinalizer},
		"a bound volume that is being deleted cannot get our finalizer":                               {[]func(*state){in(corev1.VolumeBound), noFinalizer, deleting}, none},
		"an available volume is ignored":                                                              {[]func(*state){in(corev1.VolumeAvailable)}, none},
		"a pending volume is ignored":                                                                 {[]func(*state){in(corev1.VolumePending)}, none},
		"a failed volume is ignored":                                                                  {[]func(*state){in(corev1.VolumeFailed)}, none},
		"an available volume is deleted with its object":                                              {[]func(*state){in(corev1.VolumeAvailable), deleting}, deleteVolume},
		"a failed volume is deleted with its object":                                                  {[]func(*state){in(corev1.VolumeFailed), deleting}, deleteVolume},
		"a volume without a phase is deleted with its object":                                         {[]func(*state){in(""), deleting}, deleteVolume},
		"an available volume that is attached waits for its detachment":                               {[]func(*state){in(corev1.VolumeAvailable), deleting, func(s *state) { s.attached = true }}, waitForDetach},
		"a volume that a claim is bound to is not deleted with its object":                            {[]func(*state){in(corev1.VolumePending), deleting, func(s *state) { s.boundToClaim = true }}, none},
		"an available volume without our finalizer is not deleted":                                    {[]func(*state){in(corev1.VolumeAvailable), deleting, noFinalizer}, none},
		"an available volume with policy Retain loses our finalizer":                                  {[]func(*state){in(corev1.VolumeAvailable), deleting, retained}, removeFinalizer},
		"a volume of another provisioner of the driver is reported":                                   {[]func(*state){by("other")}, reportOtherProvisioner},
		"a bound volume of another provisioner is ignored":                                            {[]func(*state){by("other"), in(corev1.VolumeBound)}, none},
		"a retained volume of another provisioner is ignored":                                         {[]func(*state){by("other"), retained}, none},
		"a volume of another provisioner without our finalizer is ignored when its object is deleted": {[]func(*state){by("other"), noFinalizer, deleting}, none},
		"a volume of another provisioner with our finalizer is reported when its object is deleted":   {[]func(*state){by("other"), deleting}, reportOtherProvisioner},
		"a volume provisioned under the driver's own name is deleted":                                 {[]func(*state){by("csitest.holdfast.io")}, deleteVolume},
		"a volume of another driver is ignored":                                                       {[]func(*state){func(s *state) { s.volume.Spec.CSI.Driver = "other" }}, none},
		"a volume that is not a CSI volume is ignored":                                                {[]func(*state){byHand, func(s *state) { s.volume.Spec.CSI = nil }}, none},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := releasedState()
			for _, change := range tt.changes {
				change(&s)
			}
			if got := decide(s, &Options{Driver: "csitest.holdfast.io", Provisioner: "storage.example.com/csi"}); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

// releasedState is a volume that no claim uses any more.
func releasedState() state {
	return state{volume: &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        "pv",
			Annotations: map[string]string{kube.AnnProvisionedBy: "storage.example.com/csi"},
			Finalizers:  []string{kube.VolumeFinalizer, "kubernetes.io/pv-protection"},
		},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: "csitest.holdfast.io", VolumeHandle: "vol"},
			},
		},
		Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeReleased},
	}}
}

func TestInTreeVolumesAreOursIfAnnotated(t *testing.T) {
	const driver, plugin = "ebs.csi.aws.com", "kubernetes.io/aws-ebs"
	for name, tt := range map[string]struct {
		annotations map[string]string
		source      corev1.PersistentVolumeSource
		want        action
	}{
		"a volume of a class of the in-tree plugin is deleted":            {map[string]string{kube.AnnProvisionedBy: plugin}, ebs(), deleteVolume},
		"an in-tree volume that was handed over to the driver is deleted": {map[string]string{kube.AnnMigratedTo: driver}, ebs(), deleteVolume},
		"an in-tree volume of another provisioner is ignored":             {map[string]string{kube.AnnProvisionedBy: "other"}, ebs(), none},
		"an in-tree volume without annotations is ignored":                {nil, ebs(), none},
		"a volume of another in-tree plugin is ignored":                   {map[string]string{kube.AnnProvisionedBy: plugin}, gce(), none},
		"a volume that was handed over to another driver is ignored":      {map[string]string{kube.AnnMigratedTo: "pd.csi.storage.gke.io"}, gce(), none},
		"a CSI volume that was handed over to the driver is deleted": {map[string]string{kube.AnnMigratedTo: driver}, corev1.PersistentVolumeSource{
			CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: "vol"},
		}, deleteVolume},
	} {
		t.Run(name, func(t *testing.T) {
			s := releasedState()
			s.volume.Annotations, s.volume.Spec.PersistentVolumeSource = tt.annotations, tt.source
			if got := decide(s, &Options{Driver: driver, Provisioner: driver, Plugin: migrate.ForDriver(driver)}); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func ebs() corev1.PersistentVolumeSource {
	return corev1.PersistentVolumeSource{AWSElasticBlockStore: &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: "vol"}}
}

func gce() corev1.PersistentVolumeSource {
	return corev1.PersistentVolumeSource{GCEPersistentDisk: &corev1.GCEPersistentDiskVolumeSource{PDName: "disk"}}
}
