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
		"a released volume is deleted":                              {nil, deleteVolume},
		"also one that was made by hand for the driver":             {[]func(*state){byHand}, deleteVolume},
		"also one whose object somebody has deleted":                {[]func(*state){deleting}, deleteVolume},
		"also one whose object lost our finalizer but stays":        {[]func(*state){noFinalizer}, deleteVolume},
		"but not one whose object is on its way out":                {[]func(*state){noFinalizer, deleting}, none},
		"an attached volume waits":                                  {[]func(*state){func(s *state) { s.attached = true }}, waitForDetach},
		"a retained volume is let go of":                            {[]func(*state){retained}, removeFinalizer},
		"also while it is bound":                                    {[]func(*state){retained, in(corev1.VolumeBound)}, removeFinalizer},
		"a retained volume that nobody holds is left alone":         {[]func(*state){retained, noFinalizer}, none},
		"a bound volume is left alone":                              {[]func(*state){in(corev1.VolumeBound)}, none},
		"a bound volume that nobody holds is held":                  {[]func(*state){in(corev1.VolumeBound), noFinalizer}, addFinalizer},
		"a bound volume being deleted cannot be held any more":      {[]func(*state){in(corev1.VolumeBound), noFinalizer, deleting}, none},
		"a volume that nobody has used yet is left alone":           {[]func(*state){in(corev1.VolumeAvailable)}, none},
		"a volume that waits to be bound is left alone":             {[]func(*state){in(corev1.VolumePending)}, none},
		"a volume that was given up is left alone":                  {[]func(*state){in(corev1.VolumeFailed)}, none},
		"one that was freed by hand goes when it is deleted":        {[]func(*state){in(corev1.VolumeAvailable), deleting}, deleteVolume},
		"so does one that was given up":                             {[]func(*state){in(corev1.VolumeFailed), deleting}, deleteVolume},
		"and one that the PV controller has not looked at yet":      {[]func(*state){in(""), deleting}, deleteVolume},
		"if it is not attached any more":                            {[]func(*state){in(corev1.VolumeAvailable), deleting, func(s *state) { s.attached = true }}, waitForDetach},
		"and no claim is bound to it":                               {[]func(*state){in(corev1.VolumePending), deleting, func(s *state) { s.boundToClaim = true }}, none},
		"and we have something to answer for":                       {[]func(*state){in(corev1.VolumeAvailable), deleting, noFinalizer}, none},
		"one that was freed and is to stay is let go of":            {[]func(*state){in(corev1.VolumeAvailable), deleting, retained}, removeFinalizer},
		"a volume of another provisioner of the driver is not ours": {[]func(*state){by("other")}, reportOtherProvisioner},
		"nothing is to be told of it while it is bound":             {[]func(*state){by("other"), in(corev1.VolumeBound)}, none},
		"nor if it is retained":                                     {[]func(*state){by("other"), retained}, none},
		"nor if it is on its way out":                               {[]func(*state){by("other"), noFinalizer, deleting}, none},
		"but if somebody has deleted the object of it":              {[]func(*state){by("other"), deleting}, reportOtherProvisioner},
		"a volume by the driver's own name is ours":                 {[]func(*state){by("csitest.holdfast.io")}, deleteVolume},
		"a volume of another driver is not ours":                    {[]func(*state){func(s *state) { s.volume.Spec.CSI.Driver = "other" }}, none},
		"a volume without a driver is not ours":                     {[]func(*state){byHand, func(s *state) { s.volume.Spec.CSI = nil }}, none},
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

// releasedState is a volume that nobody wants any more.
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
		"one of a class of the plugin":        {map[string]string{kube.AnnProvisionedBy: plugin}, ebs(), deleteVolume},
		"one that Kubernetes has handed over": {map[string]string{kube.AnnMigratedTo: driver}, ebs(), deleteVolume},
		"one of another's class":              {map[string]string{kube.AnnProvisionedBy: "other"}, ebs(), none},
		"one that is nobody's":                {nil, ebs(), none},
		"one of another plugin":               {map[string]string{kube.AnnProvisionedBy: plugin}, gce(), none},
		"one that was handed to another":      {map[string]string{kube.AnnMigratedTo: "pd.csi.storage.gke.io"}, gce(), none},
		"one of the driver that is handed over": {map[string]string{kube.AnnMigratedTo: driver}, corev1.PersistentVolumeSource{
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
