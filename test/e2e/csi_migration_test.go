package e2e

import (
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// A class of an in-tree plugin is served by the CSI driver that replaced it:
// Kubernetes migrates its claims and volumes, and users see volumes of the plugin.
// They are attached and expanded as the driver's.
func TestInTreeClassIsServedByItsCSIDriver(t *testing.T) {
	t.Parallel()
	// CSI migration depends on the driver's name, so the cluster has only one.
	o := csitest.Options{Record: true, Name: "ebs.csi.aws.com", AnyNode: true}
	driver := csitest.New(o)
	w := &world.World{Cluster: cluster.New(t), Driver: driver, Name: o.Name, Socket: driver.Serve(t)}
	w.StartProvisioner(t)
	w.StartAttacher(t)
	w.StartResizer(t)
	w.CreateClass(t, func(c *storagev1.StorageClass) {
		c.Provisioner = "kubernetes.io/aws-ebs"
		c.AllowVolumeExpansion = ptr.To(true)
		c.Parameters = map[string]string{"fsType": "xfs"}
	})
	w.CreateClaim(t, "data", nil)
	volume := w.WaitBound(t, "data")
	at := w.Driver.Volumes()
	if ebs := volume.Spec.AWSElasticBlockStore; ebs == nil || len(at) != 1 || ebs.VolumeID != at[0].ID || ebs.FSType != "xfs" {
		t.Errorf("the volume is %+v and the driver has %+v", volume.Spec.PersistentVolumeSource, at)
	}
	if by := volume.Annotations["pv.kubernetes.io/provisioned-by"]; by != "kubernetes.io/aws-ebs" {
		t.Errorf("the volume is provisioned by %q", by)
	}
	for _, call := range w.Driver.Log() {
		if r, ok := call.Request.(*csipb.CreateVolumeRequest); ok && (len(r.GetParameters()) > 0 || r.GetVolumeCapabilities()[0].GetMount().GetFsType() != "xfs") {
			t.Errorf("the CreateVolume request is %v", r)
		}
	}
	w.WaitClaimEvent(t, "data", corev1.EventTypeNormal, "ProvisioningSucceeded", volume.Name)
	attachment := w.CreateAttachment(t, volume.Name, w.CreateCSINode(t, "node", "i-1"))
	w.WaitAttached(t, attachment)
	waitPublished(t, w, volume.Spec.AWSElasticBlockStore.VolumeID, "i-1")
	w.RequestSize(t, "data", "2Gi")
	w.WaitSize(t, "data", "2Gi")
	if size := w.Driver.Volumes()[0].Bytes; size != 2<<30 {
		t.Errorf("the volume has %d bytes at the driver", size)
	}
	detachAndWait(t, w, attachment)
	w.DeleteClaim(t, "data")
	w.WaitPVGone(t, volume)
	w.WaitNothingLeft(t)
}
