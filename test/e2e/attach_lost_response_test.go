package e2e

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/test/proxy"
	"github.com/holdfast-io/holdfast/test/world"
)

// The volume is attached and the status says so, but the attacher gets no response to
// that write. It must not leave an error in the status: nothing has failed.
func TestLostStatusResponseLeavesNoError(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	var writes, responses atomic.Int32
	w.StartAttacher(t, "--kubeconfig="+proxy.Start(t, w.Config, func(r *http.Request) proxy.Fault {
		if proxy.Name(r) != "PATCH volumeattachments/status" {
			return proxy.Fault{}
		}
		n := writes.Add(1)
		return proxy.Fault{AfterResponse: func() bool {
			responses.Add(1)
			return n == 1
		}}
	}))
	volume := w.CreatePV(t, "data", nil)
	name := w.CreateAttachment(t, volume.Name, w.CreateCSINode(t, "one", "id-1"))
	world.Eventually(t, func(context.Context) error {
		if responses.Load() < 2 {
			return errors.New("the status was not written again")
		}
		return nil
	})
	a, err := w.Client.StorageV1().VolumeAttachments().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !a.Status.Attached || a.Status.AttachError != nil {
		t.Errorf("its status is %+v", a.Status)
	}
	detachAndWait(t, w, name)
	waitPublished(t, w, volume.Spec.CSI.VolumeHandle)
}
