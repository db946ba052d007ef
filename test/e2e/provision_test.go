package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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
)

func TestAClaimBecomesAVolumeAndGoesAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, csitest.Options{})
	w.provisioner(t, "--provisioner=storage.example.com/"+w.Namespace, "-volume-name-prefix=csi")
	w.class(t, func(c *storagev1.StorageClass) { c.Provisioner = "storage.example.com/" + w.Namespace })
	claim := w.claim(t, "data", nil)

	volume := w.bound(t, "data")
	if want := "csi-" + string(claim.UID); volume.Name != want {
		t.Errorf("the volume's name is %s, want %s", volume.Name, want)
	}
	if got := volume.Annotations["pv.kubernetes.io/provisioned-by"]; got != "storage.example.com/"+w.Namespace {
		t.Errorf("provisioned by %q", got)
	}
	at := w.driver.Volumes()
	if len(at) != 1 || at[0].ID != volume.Spec.CSI.VolumeHandle || volume.Spec.CSI.Driver != w.name {
		t.Errorf("the driver has %+v, the volume says %s at %s", at, volume.Spec.CSI.VolumeHandle, volume.Spec.CSI.Driver)
	}
	w.told(t, "data", corev1.EventTypeNormal, "ProvisioningSucceeded", volume.Name)

	w.dropClaim(t, "data")
	w.nothingLeft(t)
	if created, deleted := w.driver.Calls(csi.CreateVolume), w.driver.Calls(csi.DeleteVolume); created != 1 || deleted != 1 {
		t.Errorf("the driver was asked %d times to create and %d times to delete one volume", created, deleted)
	}
}

func TestARetainedVolumeStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, csitest.Options{})
	w.provisioner(t)
	w.class(t, func(c *storagev1.StorageClass) { c.ReclaimPolicy = ptr.To(corev1.PersistentVolumeReclaimRetain) })
	w.claim(t, "data", nil)
	volume := w.bound(t, "data")
	w.dropClaim(t, "data")
	// A volume that comes and goes after it shows that the controller is not just late.
	w.claim(t, "other", func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock) })
	other := w.bound(t, "other")
	w.setPolicy(t, other.Name, corev1.PersistentVolumeReclaimDelete)
	w.dropClaim(t, "other")
	eventually(t, func(context.Context) error {
		if left := w.driver.Volumes(); len(left) != 1 {
			return fmt.Errorf("the driver has %d volumes", len(left))
		}
		return nil
	})
	if left := w.driver.Volumes()[0].ID; left != volume.Spec.CSI.VolumeHandle {
		t.Fatalf("%s was deleted, which was to be retained", volume.Spec.CSI.VolumeHandle)
	}
	got, err := w.Client.CoreV1().PersistentVolumes().Get(t.Context(), volume.Name, metav1.GetOptions{})
	if err != nil || got.Status.Phase != corev1.VolumeReleased {
		t.Errorf("the retained volume is %s, %v", got.Status.Phase, err)
	}
	w.setPolicy(t, volume.Name, corev1.PersistentVolumeReclaimDelete)
	w.nothingLeft(t)
}

func (w *world) setPolicy(t *testing.T, volume string, policy corev1.PersistentVolumeReclaimPolicy) {
	t.Helper()
	patch := fmt.Sprintf(`{"spec":{"persistentVolumeReclaimPolicy":%q}}`, policy)
	if _, err := w.Client.CoreV1().PersistentVolumes().Patch(t.Context(), volume, "application/merge-patch+json", []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestErrorsAreToldOnTheClaimAndHealed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, csitest.Options{})
	w.provisioner(t, "--storageclass-whitelist="+w.Namespace+",other", "--retry-interval-start=0.1")

	// The driver refuses once.
	w.driver.FailNext(csi.CreateVolume, codes.Internal, "the array is on fire")
	w.class(t, nil)
	w.claim(t, "refused", nil)
	w.told(t, "refused", corev1.EventTypeWarning, "ProvisioningFailed", "the array is on fire")
	w.bound(t, "refused")

	// The class is not one that may be served.
	w.class(t, func(c *storagev1.StorageClass) { c.Name += "-unlisted" })
	w.claim(t, "unlisted", func(c *corev1.PersistentVolumeClaim) { *c.Spec.StorageClassName += "-unlisted" })
	w.told(t, "unlisted", corev1.EventTypeWarning, "ProvisioningFailed", "--storageclass-whitelist")

	// The claim selects volumes that exist.
	w.claim(t, "selecting", func(c *corev1.PersistentVolumeClaim) {
		c.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	})
	w.told(t, "selecting", corev1.EventTypeWarning, "ProvisioningFailed", "selector")

	for _, name := range []string{"refused", "unlisted", "selecting"} {
		w.dropClaim(t, name)
	}
	w.nothingLeft(t)
}

func TestAMistypedParameterIsToldAndHealedByTheRightClass(t *testing.T) {
	t.Parallel()
	w := newWorld(t, csitest.Options{})
	w.provisioner(t)
	wrong := w.class(t, func(c *storagev1.StorageClass) {
		c.Parameters = map[string]string{"csi.storage.k8s.io/provisioner-secret-nam": "x"}
	})
	w.claim(t, "data", nil)
	w.told(t, "data", corev1.EventTypeWarning, "ProvisioningFailed", "csi.storage.k8s.io/provisioner-secret-nam")
	if calls := w.driver.Calls(csi.CreateVolume); calls != 0 {
		t.Errorf("the driver was asked %d times", calls)
	}
	w.dropClass(t.Context(), t, wrong.Name)
	w.class(t, nil) // The new class wakes the claim up: no retry is due for a while.
	w.bound(t, "data")
	w.dropClaim(t, "data")
	w.nothingLeft(t)
}

func TestMetricsAndHealthAreServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, csitest.Options{})
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	w.provisioner(t, "--http-endpoint="+address, "--metrics-path=/numbers")
	w.class(t, nil)
	w.claim(t, "data", nil)
	w.bound(t, "data")
	for path, want := range map[string]string{
		"/numbers": fmt.Sprintf(`csi_sidecar_operations_seconds_count{driver_name=%q,grpc_status_code="OK",method_name="/csi.v1.Controller/CreateVolume"} 1`, w.name),
		"/healthz": "ok", "/healthz/leader-election": "ok", "/readyz": "ok",
	} {
		eventually(t, func(ctx context.Context) error { return served(ctx, "http://"+address+path, want) })
	}
	w.dropClaim(t, "data")
	w.nothingLeft(t)
}

// served wants 200 and a line in the answer.
func served(ctx context.Context, url, line string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK || !strings.Contains("\n"+string(body)+"\n", "\n"+line+"\n") {
		return fmt.Errorf("%s: %s, %w, without the line %s: %.3000s", url, answer.Status, err, line, body)
	}
	return nil
}

// What is asked of the driver is on record before it is asked: whoever comes
// after a death at the worst moment repeats it, even when the class now says
// something else.
func TestAProvisionerThatDiesDuringCreateIsFollowedUp(t *testing.T) {
	for name, tt := range map[string]struct {
		meanwhile func(*testing.T, *world)
		then      func(*testing.T, *world)
	}{
		"the claim still wants the volume": {
			func(*testing.T, *world) {},
			func(t *testing.T, w *world) { w.bound(t, "data"); w.dropClaim(t, "data") },
		},
		"the class says something else by then": {
			func(t *testing.T, w *world) {
				w.dropClass(t.Context(), t, w.Namespace)
				w.class(t, func(c *storagev1.StorageClass) { c.Parameters = map[string]string{"pool": "other"} })
			},
			func(t *testing.T, w *world) { w.bound(t, "data"); w.dropClaim(t, "data") },
		},
		"the claim is gone by then": {
			func(t *testing.T, w *world) { w.dropClaim(t, "data") },
			func(*testing.T, *world) {},
		},
		"the claim and the class are gone by then": {
			func(t *testing.T, w *world) { w.dropClaim(t, "data"); w.dropClass(t.Context(), t, w.Namespace) },
			func(*testing.T, *world) {},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, csitest.Options{Record: true})
			first := w.provisioner(t)
			working := w.driver.Block(csi.CreateVolume)
			w.class(t, func(c *storagev1.StorageClass) { c.Parameters = map[string]string{"pool": "ssd"} })
			w.claim(t, "data", nil)
			<-working.Arrived()
			first.kill()
			tt.meanwhile(t, w)
			working.Release() // The driver finishes what nobody waits for any more.
			eventually(t, func(context.Context) error {
				if len(w.driver.Volumes()) == 0 {
					return errors.New("the driver is still at it")
				}
				return nil
			})
			w.provisioner(t)
			tt.then(t, w)
			w.nothingLeft(t)
			w.sameRequests(t)
		})
	}
}

// sameRequests wants every CreateVolume call to be the same to the byte.
func (w *world) sameRequests(t *testing.T) {
	t.Helper()
	var first *csipb.CreateVolumeRequest
	seen := 0
	for _, call := range w.driver.Log() {
		request, ok := call.Request.(*csipb.CreateVolumeRequest)
		if !ok {
			continue
		}
		seen++
		if first == nil {
			first = request
		} else if !proto.Equal(first, request) {
			t.Errorf("a repeated request is another: %s", cmp.Diff(first.String(), request.String()))
		}
	}
	if seen < 2 {
		t.Errorf("the request was sent %d times and should have been repeated", seen)
	}
}

func TestALostAnswerIsAskedForAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, csitest.Options{Record: true})
	w.provisioner(t, "--retry-interval-start=0.1")
	w.driver.LoseAnswer(csi.CreateVolume)
	w.driver.LoseAnswer(csi.DeleteVolume)
	w.class(t, nil)
	w.claim(t, "data", nil)
	w.bound(t, "data")
	w.sameRequests(t)
	if n := len(w.driver.Volumes()); n != 1 {
		t.Errorf("the driver has %d volumes for one claim", n)
	}
	w.dropClaim(t, "data")
	w.nothingLeft(t)
}

func TestALostDriverIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, csitest.Options{})
	p := w.provisioner(t, "--retry-interval-start=0.1", "--retry-interval-max=1")
	w.class(t, nil)
	w.claim(t, "before", nil)
	w.bound(t, "before")
	w.driver.Crash()
	w.claim(t, "during", nil)
	w.told(t, "during", corev1.EventTypeWarning, "ProvisioningFailed", "Unavailable")
	if err := w.driver.Restart(); err != nil {
		t.Fatal(err)
	}
	w.bound(t, "during")
	select {
	case err := <-p.done:
		t.Fatalf("the provisioner ended with the driver's connection: %v", err)
	default:
	}
	w.dropClaim(t, "before")
	w.dropClaim(t, "during")
	w.nothingLeft(t)
}

func TestMistakesOfTheCommandLineEndTheStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, csitest.Options{})
	for name, tt := range map[string]struct{ arg, want string }{
		"a provisioner name that no class can have":  {"--provisioner=a/b/c", "a/b/c"},
		"an empty prefix of volume names":            {"--volume-name-prefix=", "--volume-name-prefix"},
		"no workers":                                 {"--worker-threads=0", "--worker-threads"},
		"a first pause above the longest":            {"--retry-interval-start=1h", "--retry-interval-start"},
		"a renew deadline that outlives the lease":   {"--leader-election=true --leader-election-renew-deadline=20s", "--leader-election-lease-duration"},
		"a pause that is neither seconds nor a time": {"--retry-interval-max=soon", "seconds"},
		"a flag that does not exist":                 {"--surprise", "surprise"},
	} {
		t.Run(name, func(t *testing.T) {
			p := w.provisioner(t, strings.Fields(tt.arg)...)
			err := <-p.done
			p.done <- err
			if err == nil || !strings.Contains(p.log.String(), tt.want) {
				t.Errorf("it ended with %v and said nothing of %q", err, tt.want)
			}
		})
	}
}
