package e2e

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// A resizer may die before or after any write and any call. Whichever it was,
// its successor ends with a claim, a PersistentVolume and a volume at the driver
// that agree, and with nothing left to do.
func TestResizingSurvivesDeathAtAnyPoint(t *testing.T) {
	t.Parallel()
	scenarios := map[string]func(t *testing.T, d *deadly, claim string){
		"expand": func(t *testing.T, d *deadly, claim string) {
			d.Request(t, claim, "3Gi")
			d.agrees(t, d.Sized(t, claim, "3Gi"))
		},
		"expand, then request less": func(t *testing.T, d *deadly, claim string) {
			d.Request(t, claim, "10Gi")
			d.ClaimIs(t, claim, func(c *corev1.PersistentVolumeClaim) error {
				if !has(c, corev1.PersistentVolumeClaimControllerResizeError) {
					return fmt.Errorf("the driver has not refused it: %+v", c.Status)
				}
				return nil
			})
			d.Request(t, claim, "2Gi")
			d.agrees(t, d.Sized(t, claim, "2Gi"))
		},
		"modify, then modify again": func(t *testing.T, d *deadly, claim string) {
			d.Want(t, claim, d.gold)
			d.ClaimIs(t, claim, func(c *corev1.PersistentVolumeClaim) error {
				if c.Status.ModifyVolumeStatus == nil && ptr.Deref(c.Status.CurrentVolumeAttributesClassName, "") == "" {
					return fmt.Errorf("nothing has begun: %+v", c.Status)
				}
				return nil
			})
			d.Want(t, claim, d.silver) // Whatever has become of the other meanwhile.
			hasClass(t, d.World, claim, d.silver)
			d.agrees(t, d.ClaimIs(t, claim, nothingToModify))
		},
	}
	for name, play := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDeadly(t)
			struck := true
			for point := 1; struck; point++ {
				for _, after := range []bool{false, true} {
					claim := fmt.Sprintf("data-%d-%t", point, after)
					d.Claim(t, claim, nil)
					d.Bound(t, claim)
					d.arm(point, after)
					play(t, d, claim)
					struck = d.disarm()
					d.DropClaim(t, claim)
				}
			}
			d.NothingLeft(t)
		})
	}
}

// deadly is a world whose resizer is killed at one of its writes or calls, and
// replaced at once. The driver does not make volumes of more than 4 GiB.
type deadly struct {
	*world.World
	kubeconfig   string
	gold, silver string

	mu      sync.Mutex
	left    int // points until the strike; 0 for none
	after   bool
	resizer *world.Process
	problem error
}

func newDeadly(t *testing.T) *deadly {
	t.Helper()
	d := &deadly{World: world.New(t, csitest.Options{})}
	d.gold, d.silver = d.Attributes(t, "gold", map[string]string{"iops": "1000"}), d.Attributes(t, "silver", map[string]string{"iops": "100"})
	d.Class(t, func(c *storagev1.StorageClass) { c.AllowVolumeExpansion = ptr.To(true) })
	d.Provisioner(t)
	d.Driver.SetHooks(csitest.Hooks{
		Before: func(_ context.Context, method csi.Method, req any) error {
			if d.counts(method) && d.strike(false) {
				return status.Error(codes.Unavailable, "the caller is dead")
			}
			if r, ok := req.(*csipb.ControllerExpandVolumeRequest); ok && r.GetCapacityRange().GetRequiredBytes() > 4<<30 {
				return status.Error(codes.Internal, "the pool has 4Gi")
			}
			return nil
		},
		After: func(_ context.Context, method csi.Method, _, resp any, err error) (any, error) {
			if d.counts(method) {
				d.strike(true)
			}
			return resp, err
		},
	})
	d.listen(t)
	d.start()
	t.Cleanup(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.resizer.Kill()
		if t.Failed() {
			t.Logf("the last resizer said:\n%s", d.resizer.Log())
		}
	})
	return d
}

func (d *deadly) counts(method csi.Method) bool {
	return method == csi.ControllerExpandVolume || method == csi.ControllerModifyVolume
}

// listen puts a proxy between the resizer and the API server.
func (d *deadly) listen(t *testing.T) {
	t.Helper()
	transport, err := rest.TransportFor(d.Config)
	if err != nil {
		t.Fatal(err)
	}
	upstream, err := url.Parse(d.Config.Host)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1, // Watches are read while they run.
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(upstream) },
		ErrorLog: log.New(io.Discard, "", 0), // Whoever is killed leaves requests behind.
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Events are sent in the background, and nothing depends on them.
		write := r.Method == http.MethodPatch && !strings.Contains(r.URL.Path, "/events")
		if write && d.strike(false) {
			panic(http.ErrAbortHandler)
		}
		forward.ServeHTTP(w, r)
		if write {
			d.strike(true)
		}
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	k := clientcmdapi.NewConfig()
	k.Clusters["proxy"] = &clientcmdapi.Cluster{Server: server.URL}
	k.Contexts["proxy"] = &clientcmdapi.Context{Cluster: "proxy"}
	k.CurrentContext = "proxy"
	d.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*k, d.kubeconfig); err != nil {
		t.Fatal(err)
	}
}

func (d *deadly) start() {
	d.resizer, d.problem = world.Start("csi-resizer", d.ResizerArgs("--kubeconfig="+d.kubeconfig, "--retry-interval-start=0.1", "--retry-interval-max=1s")...)
}

// strike kills the resizer if this is the point for it, and starts another.
func (d *deadly) strike(after bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left == 0 || after != d.after {
		return false
	}
	if d.left--; d.left > 0 {
		return false
	}
	d.resizer.Kill()
	d.start()
	return true
}

func (d *deadly) arm(point int, after bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left, d.after = point, after
}

// disarm tells whether there was a strike.
func (d *deadly) disarm() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	struck := d.left == 0
	d.left = 0
	return struck
}

// agrees fails if the claim, its PersistentVolume and the driver do not agree.
func (d *deadly) agrees(t *testing.T, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	d.mu.Lock()
	problem := d.problem
	d.mu.Unlock()
	if problem != nil {
		t.Fatal(problem)
	}
	volume, err := d.Client.CoreV1().PersistentVolumes().Get(t.Context(), claim.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range d.Driver.Volumes() {
		if v.ID != volume.Spec.CSI.VolumeHandle {
			continue
		}
		if size := claim.Status.Capacity.Storage().Value(); size != volume.Spec.Capacity.Storage().Value() || size != v.Bytes {
			t.Errorf("claim %s has %d bytes, its volume %s, and the driver %d", claim.Name, size, volume.Spec.Capacity.Storage(), v.Bytes)
		}
		class := ptr.Deref(claim.Status.CurrentVolumeAttributesClassName, "")
		if want := map[string]string{d.gold: "1000", d.silver: "100"}[class]; class != ptr.Deref(volume.Spec.VolumeAttributesClassName, "") || v.Mutable["iops"] != want {
			t.Errorf("claim %s has class %q, its volume %v, and the driver %v", claim.Name, class, volume.Spec.VolumeAttributesClassName, v.Mutable)
		}
		return
	}
	t.Errorf("the driver does not have %s", volume.Spec.CSI.VolumeHandle)
}
