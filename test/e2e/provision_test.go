package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

func TestVolumeIsProvisionedAndDeleted(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.StartProvisioner(t, "--provisioner=storage.example.com/"+w.Namespace, "-volume-name-prefix=csi")
	w.CreateClass(t, func(c *storagev1.StorageClass) { c.Provisioner = "storage.example.com/" + w.Namespace })
	claim := w.CreateClaim(t, "data", nil)

	volume := w.WaitBound(t, "data")
	if want := "csi-" + string(claim.UID); volume.Name != want {
		t.Errorf("the volume's name is %s, want %s", volume.Name, want)
	}
	if got := volume.Annotations["pv.kubernetes.io/provisioned-by"]; got != "storage.example.com/"+w.Namespace {
		t.Errorf("provisioned by %q", got)
	}
	at := w.Driver.Volumes()
	if len(at) != 1 || at[0].ID != volume.Spec.CSI.VolumeHandle || volume.Spec.CSI.Driver != w.Name {
		t.Errorf("the driver has %+v, the volume says %s at %s", at, volume.Spec.CSI.VolumeHandle, volume.Spec.CSI.Driver)
	}
	w.WaitClaimEvent(t, "data", corev1.EventTypeNormal, "ProvisioningSucceeded", volume.Name)

	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
	if created, deleted := w.Driver.Calls(csi.CreateVolume), w.Driver.Calls(csi.DeleteVolume); created != 1 || deleted != 1 {
		t.Errorf("the driver was called %d times to create and %d times to delete one volume", created, deleted)
	}
}

func TestRetainedVolumeStays(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.StartProvisioner(t)
	w.CreateClass(t, func(c *storagev1.StorageClass) { c.ReclaimPolicy = ptr.To(corev1.PersistentVolumeReclaimRetain) })
	w.CreateClaim(t, "data", nil)
	volume := w.WaitBound(t, "data")
	w.DeleteClaim(t, "data")
	// Another volume, deleted after it, shows that the controller is not just slow.
	w.CreateClaim(t, "other", func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock) })
	other := w.WaitBound(t, "other")
	w.SetReclaimPolicy(t, other.Name, corev1.PersistentVolumeReclaimDelete)
	w.DeleteClaim(t, "other")
	world.Eventually(t, func(context.Context) error {
		if left := w.Driver.Volumes(); len(left) != 1 {
			return fmt.Errorf("the driver has %d volumes", len(left))
		}
		return nil
	})
	if left := w.Driver.Volumes()[0].ID; left != volume.Spec.CSI.VolumeHandle {
		t.Fatalf("the retained volume %s was deleted", volume.Spec.CSI.VolumeHandle)
	}
	got, err := w.Client.CoreV1().PersistentVolumes().Get(t.Context(), volume.Name, metav1.GetOptions{})
	if err != nil || got.Status.Phase != corev1.VolumeReleased {
		t.Errorf("the retained volume is %s, %v", got.Status.Phase, err)
	}
	w.SetReclaimPolicy(t, volume.Name, corev1.PersistentVolumeReclaimDelete)
	w.WaitNothingLeft(t)
}

func TestErrorsAreReportedOnTheClaimAndRetried(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.StartProvisioner(t, "--storageclass-whitelist="+w.Namespace+",other", "--retry-interval-start=0.1")

	// The driver fails once.
	w.Driver.FailNext(csi.CreateVolume, codes.Internal, "the array is on fire")
	w.CreateClass(t, nil)
	w.CreateClaim(t, "refused", nil)
	w.WaitClaimEvent(t, "refused", corev1.EventTypeWarning, "ProvisioningFailed", "the array is on fire")
	w.WaitBound(t, "refused")

	// The class is not in the whitelist.
	w.CreateClass(t, func(c *storagev1.StorageClass) { c.Name += "-unlisted" })
	w.CreateClaim(t, "unlisted", func(c *corev1.PersistentVolumeClaim) { *c.Spec.StorageClassName += "-unlisted" })
	w.WaitClaimEvent(t, "unlisted", corev1.EventTypeWarning, "ProvisioningFailed", "--storageclass-whitelist")

	// The claim selects volumes that exist.
	w.CreateClaim(t, "selecting", func(c *corev1.PersistentVolumeClaim) {
		c.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	})
	w.WaitClaimEvent(t, "selecting", corev1.EventTypeWarning, "ProvisioningFailed", "selector")

	for _, name := range []string{"refused", "unlisted", "selecting"} {
		w.DeleteClaim(t, name)
	}
	w.WaitNothingLeft(t)
}

func TestUnknownParameterIsReportedUntilClassIsFixed(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.StartProvisioner(t)
	wrong := w.CreateClass(t, func(c *storagev1.StorageClass) {
		c.Parameters = map[string]string{"csi.storage.k8s.io/provisioner-secret-nam": "x"}
	})
	w.CreateClaim(t, "data", nil)
	w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "ProvisioningFailed", "csi.storage.k8s.io/provisioner-secret-nam")
	if calls := w.Driver.Calls(csi.CreateVolume); calls != 0 {
		t.Errorf("the driver was called %d times", calls)
	}
	w.DeleteClass(t.Context(), t, wrong.Name)
	w.CreateClass(t, nil) // The new class requeues the claim: no retry is due for a while.
	w.WaitBound(t, "data")
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

func TestMetricsAndHealthAreServed(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	address := world.FreeAddress(t)
	w.StartProvisioner(t, "--metrics-address="+address, "--metrics-path=/numbers", "--enable-pprof")
	w.CreateClass(t, nil)
	w.CreateClaim(t, "data", nil)
	w.WaitBound(t, "data")
	claim := fmt.Sprintf(`{class=%q,source=""}`, w.Namespace)
	for _, want := range []string{
		fmt.Sprintf(`csi_sidecar_operations_seconds_count{driver_name=%q,grpc_status_code="OK",method_name="/csi.v1.Controller/CreateVolume"} 1`, w.Name),
		"controller_persistentvolumeclaim_provision_total" + claim + " 1",
		"controller_persistentvolumeclaim_provision_duration_seconds_count" + claim + " 1",
		"# TYPE go_goroutines gauge", "# TYPE process_open_fds gauge", "# TYPE rest_client_requests_total counter", "# TYPE workqueue_depth gauge",
	} {
		world.Eventually(t, func(ctx context.Context) error { return checkServed(ctx, "http://"+address+"/numbers", want) })
	}
	for path, want := range map[string]string{
		"/healthz": "ok", "/healthz/leader-election": "ok", "/readyz": "ok",
		"/debug/pprof/symbol": "num_symbols: 1",
	} {
		world.Eventually(t, func(ctx context.Context) error { return checkServed(ctx, "http://"+address+path, want) })
	}
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
	deleted := fmt.Sprintf(`{class=%q}`, w.Namespace)
	for _, want := range []string{
		"controller_persistentvolume_delete_total" + deleted + " 1",
		"controller_persistentvolume_delete_duration_seconds_count" + deleted + " 1",
	} {
		world.Eventually(t, func(ctx context.Context) error { return checkServed(ctx, "http://"+address+"/numbers", want) })
	}
}

// A request is recorded before it is sent. Whoever resumes it after a crash repeats
// it, even if the class has changed.
func TestCreateVolumeIsResumedAfterCrash(t *testing.T) {
	for name, tt := range map[string]struct {
		meanwhile func(*testing.T, *world.World)
		then      func(*testing.T, *world.World)
	}{
		"the claim still needs the volume": {
			func(*testing.T, *world.World) {},
			func(t *testing.T, w *world.World) { w.WaitBound(t, "data"); w.DeleteClaim(t, "data") },
		},
		"the class has changed": {
			func(t *testing.T, w *world.World) {
				w.DeleteClass(t.Context(), t, w.Namespace)
				w.CreateClass(t, func(c *storagev1.StorageClass) { c.Parameters = map[string]string{"pool": "other"} })
			},
			func(t *testing.T, w *world.World) { w.WaitBound(t, "data"); w.DeleteClaim(t, "data") },
		},
		"the claim is gone": {
			func(t *testing.T, w *world.World) { w.DeleteClaim(t, "data") },
			func(*testing.T, *world.World) {},
		},
		"the claim and the class are gone": {
			func(t *testing.T, w *world.World) {
				w.DeleteClaim(t, "data")
				w.DeleteClass(t.Context(), t, w.Namespace)
			},
			func(*testing.T, *world.World) {},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, csitest.Options{Record: true})
			first := w.StartProvisioner(t)
			working := w.Driver.Block(csi.CreateVolume)
			w.CreateClass(t, func(c *storagev1.StorageClass) { c.Parameters = map[string]string{"pool": "ssd"} })
			w.CreateClaim(t, "data", nil)
			<-working.Arrived()
			first.Kill()
			tt.meanwhile(t, w)
			working.Release() // The driver completes the call without its caller.
			world.Eventually(t, func(context.Context) error {
				if len(w.Driver.Volumes()) == 0 {
					return errors.New("the driver has not created the volume")
				}
				return nil
			})
			w.StartProvisioner(t)
			tt.then(t, w)
			w.WaitNothingLeft(t)
			checkSameRequests(t, w)
		})
	}
}

// checkSameRequests checks that all CreateVolume requests are equal.
func checkSameRequests(t *testing.T, w *world.World) {
	t.Helper()
	var first *csipb.CreateVolumeRequest
	seen := 0
	for _, call := range w.Driver.Log() {
		request, ok := call.Request.(*csipb.CreateVolumeRequest)
		if !ok {
			continue
		}
		seen++
		if first == nil {
			first = request
		} else if !proto.Equal(first, request) {
			t.Errorf("a repeated request differs: %s", cmp.Diff(first.String(), request.String()))
		}
	}
	if seen < 2 {
		t.Errorf("the request was sent %d times, want a repetition", seen)
	}
}

func TestLostResponseIsRequestedAgain(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{Record: true})
	w.StartProvisioner(t, "--retry-interval-start=0.1")
	w.Driver.LoseResponse(csi.CreateVolume)
	w.Driver.LoseResponse(csi.DeleteVolume)
	w.CreateClass(t, nil)
	w.CreateClaim(t, "data", nil)
	w.WaitBound(t, "data")
	checkSameRequests(t, w)
	if n := len(w.Driver.Volumes()); n != 1 {
		t.Errorf("the driver has %d volumes for one claim", n)
	}
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

func TestCrashedDriverIsAwaited(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	p := w.StartProvisioner(t, "--retry-interval-start=0.1", "--retry-interval-max=1")
	w.CreateClass(t, nil)
	w.CreateClaim(t, "before", nil)
	w.WaitBound(t, "before")
	w.Driver.Crash()
	w.CreateClaim(t, "during", nil)
	w.WaitClaimEvent(t, "during", corev1.EventTypeWarning, "ProvisioningFailed", "Unavailable")
	if err := w.Driver.Restart(); err != nil {
		t.Fatal(err)
	}
	w.WaitBound(t, "during")
	select {
	case <-p.Done():
		t.Fatalf("the provisioner ended with the driver's connection: %v", p.Err())
	default:
	}
	w.DeleteClaim(t, "before")
	w.DeleteClaim(t, "during")
	w.WaitNothingLeft(t)
}

func TestInvalidFlagsAreRejected(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	for name, tt := range map[string]struct{ arg, want string }{
		"a provisioner name that no class can have": {"--provisioner=a/b/c", "a/b/c"},
		"an empty prefix of volume names":           {"--volume-name-prefix=", "--volume-name-prefix"},
		"no workers":                                {"--worker-threads=0", "--worker-threads"},
		"a first retry interval above the longest":  {"--retry-interval-start=1h", "--retry-interval-start"},
		"a renew deadline that outlives the lease":  {"--leader-election=true --leader-election-renew-deadline=20s", "--leader-election-lease-duration"},
		"a retry interval that is no duration":      {"--retry-interval-max=soon", "seconds"},
		"a flag that does not exist":                {"--surprise", "surprise"},
		"a gate that does not exist":                {"--feature-gates=Surprise=true", "VolumeAttributesClass"},
		"two addresses for metrics":                 {"--metrics-address=:1 --http-endpoint=:1", "--metrics-address"},
		"profiles without an address":               {"--enable-pprof", "--http-endpoint"},
		"names of volumes without a UID":            {"--volume-name-uuid-length=0", "--volume-name-uuid-length"},
		"node deployment without topology":          {"--node-deployment --feature-gates=Topology=false", "Topology=false"},
		"no workers for clone sources":              {"--cloning-protection-threads=0", "--cloning-protection-threads"},
		"an invalid choice of processors":           {"--automaxprocs=some", "--automaxprocs"},
	} {
		t.Run(name, func(t *testing.T) {
			p := w.StartProvisioner(t, strings.Fields(tt.arg)...)
			if err := p.Err(); err == nil || !strings.Contains(p.Log(), tt.want) {
				t.Errorf("it ended with %v, and the log lacks %q", err, tt.want)
			}
		})
	}
}
