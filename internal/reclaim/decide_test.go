package reclaim

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/migrate"
)

func TestDecide(t *testing.T) {
	retained := func(s *seen) { s.volume.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain }
	in := func(phase corev1.PersistentVolumePhase) func(*seen) {
		return func(s *seen) { s.volume.Status.Phase = phase }
	}
	unheld := func(s *seen) { s.volume.Finalizers = []string{"kubernetes.io/pv-protection"} }
	deleting := func(s *seen) { s.volume.DeletionTimestamp = &metav1.Time{} }
	by := func(name string) func(*seen) {
		return func(s *seen) { s.volume.Annotations[kube.AnnProvisionedBy] = name }
	}
	byHand := func(s *seen) { s.volume.Annotations = nil }
	tests := map[string]struct {
		changes []func(*seen)
		want    kind
	}{
		"a released volume is deleted":                              {nil, destroy},
		"also one that was made by hand for the driver":             {[]func(*seen){byHand}, destroy},
		"also one whose object somebody has deleted":                {[]func(*seen){deleting}, destroy},
		"also one whose object lost our finalizer but stays":        {[]func(*seen){unheld}, destroy},
		"but not one whose object is on its way out":                {[]func(*seen){unheld, deleting}, rest},
		"an attached volume waits":                                  {[]func(*seen){func(s *seen) { s.attached = true }}, await},
		"a retained volume is let go of":                            {[]func(*seen){retained}, release},
		"also while it is bound":                                    {[]func(*seen){retained, in(corev1.VolumeBound)}, release},
		"a retained volume that nobody holds is left alone":         {[]func(*seen){retained, unheld}, rest},
		"a bound volume is left alone":                              {[]func(*seen){in(corev1.VolumeBound)}, rest},
		"a bound volume that nobody holds is held":                  {[]func(*seen){in(corev1.VolumeBound), unheld}, hold},
		"a bound volume being deleted cannot be held any more":      {[]func(*seen){in(corev1.VolumeBound), unheld, deleting}, rest},
		"a volume that nobody has used yet is left alone":           {[]func(*seen){in(corev1.VolumeAvailable)}, rest},
		"a volume that waits to be bound is left alone":             {[]func(*seen){in(corev1.VolumePending)}, rest},
		"a volume that was given up is left alone":                  {[]func(*seen){in(corev1.VolumeFailed)}, rest},
		"one that was freed by hand goes when it is deleted":        {[]func(*seen){in(corev1.VolumeAvailable), deleting}, destroy},
		"so does one that was given up":                             {[]func(*seen){in(corev1.VolumeFailed), deleting}, destroy},
		"and one that the PV controller has not looked at yet":      {[]func(*seen){in(""), deleting}, destroy},
		"if it is not attached any more":                            {[]func(*seen){in(corev1.VolumeAvailable), deleting, func(s *seen) { s.attached = true }}, await},
		"and no claim is bound to it":                               {[]func(*seen){in(corev1.VolumePending), deleting, func(s *seen) { s.claimed = true }}, rest},
		"and we have something to answer for":                       {[]func(*seen){in(corev1.VolumeAvailable), deleting, unheld}, rest},
		"one that was freed and is to stay is let go of":            {[]func(*seen){in(corev1.VolumeAvailable), deleting, retained}, release},
		"a volume of another provisioner of the driver is not ours": {[]func(*seen){by("other")}, disown},
		"nothing is to be told of it while it is bound":             {[]func(*seen){by("other"), in(corev1.VolumeBound)}, rest},
		"nor if it is retained":                                     {[]func(*seen){by("other"), retained}, rest},
		"nor if it is on its way out":                               {[]func(*seen){by("other"), unheld, deleting}, rest},
		"but if somebody has deleted the object of it":              {[]func(*seen){by("other"), deleting}, disown},
		"a volume by the driver's own name is ours":                 {[]func(*seen){by("csitest.holdfast.io")}, destroy},
		"a volume of another driver is not ours":                    {[]func(*seen){func(s *seen) { s.volume.Spec.CSI.Driver = "other" }}, rest},
		"a volume without a driver is not ours":                     {[]func(*seen){byHand, func(s *seen) { s.volume.Spec.CSI = nil }}, rest},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := released()
			for _, change := range tt.changes {
				change(&s)
			}
			if got := decide(s, &Options{Driver: "csitest.holdfast.io", Provisioner: "storage.example.com/csi"}); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

// released is a volume that nobody wants any more.
func released() seen {
	return seen{volume: &corev1.PersistentVolume{
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

func TestVolumesOfABuiltInPluginAreOursIfSomebodyHasWrittenSo(t *testing.T) {
	const driver, plugin = "ebs.csi.aws.com", "kubernetes.io/aws-ebs"
	for name, tt := range map[string]struct {
		annotations map[string]string
		source      corev1.PersistentVolumeSource
		want        kind
	}{
		"one of a class of the plugin":        {map[string]string{kube.AnnProvisionedBy: plugin}, ebs(), destroy},
		"one that Kubernetes has handed over": {map[string]string{kube.AnnMigratedTo: driver}, ebs(), destroy},
		"one of another's class":              {map[string]string{kube.AnnProvisionedBy: "other"}, ebs(), rest},
		"one that is nobody's":                {nil, ebs(), rest},
		"one of another plugin":               {map[string]string{kube.AnnProvisionedBy: plugin}, gce(), rest},
		"one that was handed to another":      {map[string]string{kube.AnnMigratedTo: "pd.csi.storage.gke.io"}, gce(), rest},
		"one of the driver that is handed over": {map[string]string{kube.AnnMigratedTo: driver}, corev1.PersistentVolumeSource{
			CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: "vol"},
		}, destroy},
	} {
		t.Run(name, func(t *testing.T) {
			s := released()
			s.volume.Annotations, s.volume.Spec.PersistentVolumeSource = tt.annotations, tt.source
			if got := decide(s, &Options{Driver: driver, Provisioner: driver, Plugin: migrate.Of(driver)}); got != tt.want {
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
